"""Every family of encoders and every kind of tokenizer, from tiny random configurations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from sentorder import SentenceOrderer, UserError
from sentorder.data.document_tables import to_dataset
from sentorder.data.documents import Document
from sentorder.data.tokenization import tokenize
from sentorder.encoders import UNLIMITED_WINDOW, window_length
from sentorder.evaluation import evaluate, evaluation_loader
from sentorder.loop import train_steps

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def write_tokenizer(folder: Path, kind: str, texts: list[str]) -> int:
    """A trained tokenizer of a kind, and how many tokens it has."""
    special = {
        "word pieces": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "bytes": {"cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "sentence pieces": {"cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "bytes, as GPT-2": {"bos_token": "<|end|>", "eos_token": "<|end|>", "unk_token": "<|end|>"},
        "no cls": {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"},
    }[kind]
    names = list(dict.fromkeys(special.values()))
    if kind.startswith("bytes"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=400, special_tokens=names, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "word pieces":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=names)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=names, unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    wrapped.save_pretrained(folder)
    return len(wrapped)


FAMILIES: dict[str, tuple[type[PreTrainedConfig], str, dict[str, Any], int]] = {
    # name: (configuration, tokenizer, its own fields, the window that must be found)
    "roberta": (RobertaConfig, "bytes", {"max_position_embeddings": 42, "pad_token_id": 1, "type_vocab_size": 1}, 40),
    "xlm-roberta": (XLMRobertaConfig, "sentence pieces", {"max_position_embeddings": 42, "pad_token_id": 1}, 40),
    "mpnet": (MPNetConfig, "word pieces", {"max_position_embeddings": 42, "pad_token_id": 1}, 40),
    "distilbert": (
        DistilBertConfig, "word pieces",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 40}, 40,
    ),
    "electra": (ElectraConfig, "word pieces", {"embedding_size": 16, "max_position_embeddings": 40}, 40),
    "deberta-v2": (
        DebertaV2Config, "sentence pieces",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0,
         "position_biased_input": False, "max_relative_positions": -1, "max_position_embeddings": 64}, 64,
    ),
    "modernbert": (
        ModernBertConfig, "bytes",
        {"max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 1}, 64,
    ),
    "no cls": (ElectraConfig, "no cls", {"embedding_size": 16, "max_position_embeddings": 64}, 64),
    "gpt2": (
        GPT2Config, "bytes, as GPT-2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}, 64,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def short_documents(documents: list[Document]) -> list[Document]:
    """Six documents of 4 to 6 sentences, cut to two words each."""
    chosen = [document for document in documents if 4 <= len(document.sentences) <= 6][:6]
    return [Document(d.id, [" ".join(sentence.split()[:2]) for sentence in d.sentences]) for d in chosen]


def make_encoder(folder: Path, family: str, documents: list[Document], dtype: torch.dtype = torch.float32) -> Path:
    config, kind, fields, _ = FAMILIES[family]
    size = write_tokenizer(folder, kind, [sentence for document in documents for sentence in document.sentences])
    sizes = {} if family in ("distilbert", "gpt2") else SIZES
    torch.manual_seed(0)
    AutoModel.from_config(config(vocab_size=size, **sizes, **fields)).to(dtype).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_saved_reloaded_and_used(
    family: str, documents: list[Document], short_documents: list[Document], tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "encoder", family, documents)
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(str(folder), method="pointer", dropout=0.0)
    assert model.config.max_length == FAMILIES[family][3]
    assert getattr(model.backbone.encoder, "pooler", None) is None
    # Padding on the right of the shorter ones must not change them, whatever the family counts positions by.
    table = tokenize(to_dataset(short_documents), model.tokenizer, model.config.max_length)
    accelerator = Accelerator(cpu=True)
    loader = evaluation_loader(accelerator, model, table, 6)
    (batch,) = loader
    assert not batch["attention_mask"].all()
    model.eval()
    together = model(**batch).slot_states
    for row in range(6):
        length, sentences = int(batch["attention_mask"][row].sum()), int(batch["slot_mask"][row].sum())
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        for name, most in (("input_ids", length), ("attention_mask", length), ("token_slots", length)):
            alone[name] = alone[name][:, :most]
        for name in ("slot_mask", "positions"):
            alone[name] = alone[name][:, :sentences]
        torch.testing.assert_close(model(**alone).slot_states[0], together[row, :sentences], atol=2e-5, rtol=1e-4)
    # A few steps on one batch bring the loss down, and every parameter that is left has a gradient.
    missing: list[str] = []
    losses = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in train_steps(accelerator, model, optimizer, None, loader, model.method.loss, max_steps=8):
        losses.append(step.loss.item())
        missing += [name for name, state in model.named_parameters() if state not in optimizer.state]
    assert losses[-1] < 0.8 * losses[0], losses
    assert missing == []
    # What was saved is what was trained.
    expected = evaluate(accelerator, model, loader, table)
    model.save_pretrained(tmp_path / "model")
    again = SentenceOrderer.from_pretrained(tmp_path / "model")
    found = evaluate(accelerator, again, evaluation_loader(accelerator, again, table, 6), table)
    assert found.scores == pytest.approx(expected.scores, abs=1e-6)
    assert [record.order for record in found.records] == [record.order for record in expected.records]
    shutil.rmtree(folder)  # the checkpoint needs nothing else
    assert [ordered.order for ordered in again.order([d.sentences for d in short_documents])] == [
        record.order for record in expected.records
    ]


def test_roberta_types_take_a_document_of_exactly_their_window(documents: list[Document], tmp_path: Path) -> None:
    """Their table of positions has two rows more than the window, because they count from behind the padding index."""
    for family in ("roberta", "xlm-roberta", "mpnet"):
        folder = make_encoder(tmp_path / family, family, documents)
        model = SentenceOrderer.from_encoder(str(folder))
        long = [sentence * 3 for sentence in documents[0].sentences]
        assert sorted(model.order([long])[0].order) == list(range(len(long)))
        assert tokenize(to_dataset([Document("x", long)]), model.tokenizer, 40)["length"][0] > 35


def test_an_encoder_without_limit_has_a_stated_one(documents: list[Document], tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "encoder", "deberta-v2", documents)
    model = SentenceOrderer.from_encoder(str(folder))
    model.tokenizer.model_max_length = int(1e30)
    model.backbone.encoder.config.max_position_embeddings = 10**9  # how configurations say so
    assert window_length(model.backbone.encoder, model.tokenizer) == UNLIMITED_WINDOW


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_are_trained_in_float32(
    dtype: torch.dtype, documents: list[Document], tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "encoder", "electra", documents, dtype)
    model = SentenceOrderer.from_encoder(str(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "model")
    again = SentenceOrderer.from_pretrained(tmp_path / "model")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_a_tokenizer_without_cls_gets_one_that_begins_as_the_mean(documents: list[Document], tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "encoder", "no cls", documents)
    before = AutoModel.from_pretrained(folder).get_input_embeddings().weight
    model = SentenceOrderer.from_encoder(str(folder))
    table = model.backbone.encoder.get_input_embeddings().weight
    assert model.tokenizer.cls_token == "[CLS]" and model.tokenizer.cls_token_id == len(before)
    assert len(table) == len(before) + 1 and torch.equal(table[:-1], before)
    torch.testing.assert_close(table[-1], before.mean(dim=0))
    # The text cannot write the marker by itself: only the collator does.
    batch_ids = tokenize(to_dataset([Document("x", ["a b", "c d"])]), model.tokenizer, 64)["sentence_ids"][0]
    assert all(model.tokenizer.cls_token_id not in ids for ids in batch_ids)


def test_a_tokenizer_without_pad_pads_with_its_end(documents: list[Document], tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "encoder", "gpt2", documents)
    model = SentenceOrderer.from_encoder(str(folder))
    assert model.tokenizer.pad_token == "<|end|>" and model.tokenizer.cls_token == "[CLS]"


def test_only_safetensors_are_loaded(documents: list[Document], tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "encoder", "electra", documents)
    weights = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no model and tokenizer that could be loaded"):
        SentenceOrderer.from_encoder(str(folder))

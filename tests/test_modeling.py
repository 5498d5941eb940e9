import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertModel

from sentorder import encoders
from sentorder.data.collation import EncodedDocument
from sentorder.data.documents import Document
from sentorder.data.sampling import PlannedDocument
from sentorder.data.tokenization import encode_documents
from sentorder.errors import UserError
from sentorder.metrics import kendall_tau, positions_of
from sentorder.modeling import SentenceOrderer, load_for_training


@pytest.fixture
def model(any_model: SentenceOrderer) -> SentenceOrderer:
    return any_model


def texts(documents: list[Document], count: int = 40) -> list[list[str]]:
    return [document.sentences for document in documents[:count]]


def test_a_saved_model_is_the_same_model(model: SentenceOrderer, documents: list[Document], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    files = {path.name for path in (tmp_path / "m").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files and not any("bin" in name for name in files)
    loaded = SentenceOrderer.from_pretrained(tmp_path / "m")
    assert not loaded.training and loaded.config.method == model.config.method
    assert loaded.order(texts(documents)) == model.order(texts(documents))
    assert type(AutoModel.from_pretrained(tmp_path / "m")) is SentenceOrderer
    # Nothing of this machine is written down.
    assert str(tmp_path.parent) not in (tmp_path / "m" / "config.json").read_text()


def test_order_gives_a_permutation_that_does_not_depend_on_the_input_order(
    model: SentenceOrderer, documents: list[Document]
) -> None:
    given = texts(documents)
    results = model.order(given, batch_size=7)
    random = np.random.default_rng(0)
    for sentences, result in zip(given, results, strict=True):
        assert sorted(result.order) == list(range(len(sentences)))
        assert [sentences[i] for i in result.order] == result.sentences
        assert 0.0 <= result.confidence <= 1.0
    shuffled = [[sentences[i] for i in random.permutation(len(sentences))] for sentences in given]
    assert [r.sentences for r in model.order(shuffled, batch_size=7)] == [r.sentences for r in results]
    one = model.order([["only one"]])[0]
    assert one.order == [0] and one.confidence == 1.0
    assert model.order([]) == []


def test_an_untrained_model_knows_no_order(model: SentenceOrderer, documents: list[Document]) -> None:
    given = texts(documents, 451)
    taus = [kendall_tau(positions_of(r.order), range(len(r.order))) for r in model.order(given)]
    assert abs(np.mean(taus)) < 4 * np.std(taus) / len(taus) ** 0.5


def test_padding_does_not_change_a_document(model: SentenceOrderer, documents: list[Document]) -> None:
    given = [["a b c", "d e", "f"], documents[0].sentences * 2]
    columns = encode_documents(given, model.tokenizer, 512)
    items = [EncodedDocument(PlannedDocument(0, i, 1.0), columns["sentence_ids"][i]) for i in range(2)]
    collate = model.collator(seed=0)
    with torch.no_grad():
        alone, together = model(**collate(items[:1])), model(**collate(items))
    for name in ("scores", "pair_logits"):
        if name in alone:
            narrow = together[name][:1, :3] if name == "scores" else together[name][:1, :3, :3]
            assert torch.allclose(alone[name], narrow, atol=1e-5)


def test_every_parameter_is_trained(model: SentenceOrderer, documents: list[Document]) -> None:
    """No pooler and nothing else without a gradient, which would stop DDP."""
    columns = encode_documents(texts(documents, 4), model.tokenizer, 512)
    items = [EncodedDocument(PlannedDocument(0, i, 1.0), columns["sentence_ids"][i]) for i in range(4)]
    batch = model.collator(seed=0)(items)
    model.train()
    model.method.training_loss(model(**batch), batch).mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_half_precision_encoders_are_trained_in_float32(tiny_encoder: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_encoder, tmp_path / "half")
    BertModel.from_pretrained(tiny_encoder).half().save_pretrained(tmp_path / "half")
    model = SentenceOrderer.from_encoder(str(tmp_path / "half"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_dropout_and_window(tiny_encoder: str) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, dropout=0.25)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.25} and model.backbone.encoder.config.attention_probs_dropout_prob == 0.25
    assert SentenceOrderer.from_encoder(tiny_encoder).backbone.encoder.config.hidden_dropout_prob == 0.1
    assert model.config.max_length == 512
    assert SentenceOrderer.from_encoder(tiny_encoder, max_length=64).config.max_length == 64
    with pytest.raises(UserError, match="takes at most 512 tokens"):
        SentenceOrderer.from_encoder(tiny_encoder, max_length=513)


def test_roberta_types_have_fewer_positions_than_rows(tiny_encoder: str) -> None:
    from transformers import RobertaConfig, RobertaModel

    encoder = RobertaModel(RobertaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                         intermediate_size=8, max_position_embeddings=130))  # fmt: skip
    assert encoders.window_length(encoder, encoders.load_tokenizer(tiny_encoder)) == 128


def test_going_on_with_a_model_of_ours(tiny_encoder: str, tmp_path: Path) -> None:
    options = {
        "method": None,
        "backbone": None,
        "pooling": None,
        "dropout": None,
        "max_length": None,
        "tokenizer_name": None,
    }
    first = load_for_training(tiny_encoder, **{**options, "method": "regression", "pooling": "mean"})
    first.save_pretrained(tmp_path / "m")
    second = load_for_training(str(tmp_path / "m"), **{**options, "dropout": 0.3, "max_length": 100})
    assert "with its trained head" in second.origin
    assert (second.config.method, second.config.pooling, second.config.max_length) == ("regression", "mean", 100)
    assert torch.equal(first.head.score.weight, second.head.score.weight)
    assert {m.p for m in second.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    with pytest.raises(UserError, match="--method pairwise: .* was trained with regression"):
        load_for_training(str(tmp_path / "m"), **{**options, "method": "pairwise"})
    with pytest.raises(UserError, match="--backbone restarted: .* was trained with hierarchical"):
        load_for_training(str(tmp_path / "m"), **{**options, "backbone": "restarted"})
    with pytest.raises(UserError, match="--method random: learns nothing"):
        load_for_training(tiny_encoder, **{**options, "method": "random"})
    SentenceOrderer.from_encoder(tiny_encoder, method="similarity").save_pretrained(tmp_path / "floor")
    with pytest.raises(UserError, match="its method similarity learns nothing"):
        load_for_training(str(tmp_path / "floor"), **options)


def damage(folder: Path, what: str) -> None:
    if what == "config":
        (folder / "config.json").write_text("{")
    elif what == "no config":
        (folder / "config.json").unlink()
    elif what == "other model":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif what == "weights":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "tokenizer":
        (folder / "tokenizer.json").unlink()
    elif what == "newer":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "format_version": 99}))
    elif what == "other tokenizer":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "tokenizer_size": 7}))
    elif what == "method":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "method": "magic"}))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("config", "config.json cannot be read"),
        ("no config", "holds no model"),
        ("other model", "holds a bert model, not one trained by sentorder"),
        ("weights", "model.safetensors: cannot be read"),
        ("no weights", "model.safetensors: cannot be read"),
        ("tokenizer", "holds no tokenizer files"),
        ("other tokenizer", "a tokenizer file is missing or was replaced"),
        ("newer", "format 99, newer than this sentorder"),
        ("method", "no method 'magic'"),
    ],
)
def test_a_damaged_model_gets_one_clear_sentence(tiny_encoder: str, tmp_path: Path, what: str, message: str) -> None:
    SentenceOrderer.from_encoder(tiny_encoder).save_pretrained(tmp_path / "m")
    damage(tmp_path / "m", what)
    with pytest.raises(UserError) as error:
        SentenceOrderer.from_pretrained(tmp_path / "m")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_encoders_that_cannot_be_used(tiny_encoder: str, tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    shutil.copytree(tiny_encoder, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / "bare" / name).unlink()
    with pytest.raises(UserError, match="holds no tokenizer files"):
        SentenceOrderer.from_encoder(str(tmp_path / "bare"))
    shutil.copytree(tiny_encoder, tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="holds no model and tokenizer that could be loaded"):
        SentenceOrderer.from_encoder(str(tmp_path / "torn"))
    config = T5Config(d_model=8, num_layers=1, num_decoder_layers=1, num_heads=1, d_ff=8, d_kv=8, vocab_size=2000)
    shutil.copytree(tiny_encoder, tmp_path / "t5")
    T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(UserError, match="t5"):
        SentenceOrderer.from_encoder(str(tmp_path / "t5"), method="regression", pooling="mean")
    with pytest.raises(UserError, match="no pooling 'max'"):
        SentenceOrderer.from_encoder(tiny_encoder, pooling="max")


def test_what_is_cut_is_said(tiny_encoder: str, caplog: pytest.LogCaptureFixture) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, max_length=16)
    model.order([["a cat sat on the mat and looked at the dog " * 3, "a dog"], ["a", "b"]])
    assert "1 of 2 documents do not fit into the encoder's window" in caplog.text


@pytest.mark.parametrize("bad", [["just a string"][0], [""], ["a", "  "], [], ["a", 3]])
def test_documents_that_are_none(tiny_encoder: str, bad: object) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder)
    with pytest.raises(UserError, match=r"documents\[1\]"):
        model.order([["a", "b"], bad])  # type: ignore[list-item]


def test_the_packaged_encoder_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoders.packaged_encoder() is not None
    source = encoders.resolve_encoder(None)
    assert Path(source.path).is_dir() and "checksum verified" in source.description
    assert source.name == encoders.DEFAULT_ENCODER
    monkeypatch.setattr(encoders, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(UserError, match="checksum is not that of"):
        encoders.packaged_encoder()
    monkeypatch.setattr(encoders, "PACKAGED_ENCODER", "not_installed_anywhere")
    assert encoders.resolve_encoder(None).path == encoders.DEFAULT_ENCODER
    with pytest.raises(UserError, match=r"sentorder\[quickstart\].*--model_name_or_path"):
        SentenceOrderer.from_encoder()

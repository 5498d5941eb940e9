"""What reads the documents: who sees whom, and what the order of the input can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sentorder import SentenceOrderer, UserError
from sentorder.contracts import Batch
from sentorder.data.collation import EncodedDocument
from sentorder.data.document_tables import to_dataset
from sentorder.data.documents import Document
from sentorder.data.sampling import PlannedDocument
from sentorder.memory import most_demanding
from sentorder.optimization import parameter_groups
from sentorder.passes import reorder_batch
from tests.test_encoders import make_encoder


def batch_of(model: SentenceOrderer, texts: list[list[str]]) -> Batch:
    table = model.tokenize(to_dataset([Document(str(row), text) for row, text in enumerate(texts)]))
    items = [EncodedDocument(PlannedDocument(0, row, 1.0), table[row]["sentence_ids"]) for row in range(len(texts))]
    return model.collator(seed=0)(items)


def reversed_slots(mask: torch.Tensor) -> torch.Tensor:
    slots = torch.arange(mask.shape[1]).expand_as(mask).clone()
    for row, n in enumerate(mask.sum(dim=1).tolist()):
        slots[row, :n] = torch.arange(n).flip(0)
    return slots


@torch.no_grad()
def moved_by_reversal(model: SentenceOrderer, batch: Batch) -> float:
    """How much the state of a sentence changes if the sentences come in the opposite order."""
    slots = reversed_slots(batch["slot_mask"])
    model.eval()
    straight = model(**batch).slot_states
    turned = model(**reorder_batch(batch, slots)).slot_states
    back = turned.gather(1, slots[:, :, None].expand_as(turned))  # a reversal is its own inverse
    return float((straight - back).abs().max())


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "modernbert", "distilbert"])
@pytest.mark.parametrize("backbone", ["restarted", "hierarchical", "sentence"])
def test_the_order_of_the_input_cannot_be_seen(
    backbone: str, family: str, tiny_encoder: str, documents: list[Document], tmp_path: Path
) -> None:
    encoder = tiny_encoder if family == "bert" else str(make_encoder(tmp_path / "encoder", family, documents))
    torch.manual_seed(0)
    texts = [[" ".join(s.split()[:2]) for s in document.sentences] for document in documents[:6]]
    model = SentenceOrderer.from_encoder(encoder, method="pairwise", backbone=backbone)
    assert moved_by_reversal(model, batch_of(model, texts)) < 1e-5
    joint = SentenceOrderer.from_encoder(encoder, method="pairwise", backbone="joint")
    assert moved_by_reversal(joint, batch_of(joint, texts)) > 1e-3


@pytest.mark.parametrize(
    ("family", "reason"),
    [("deberta-v2", "sees the order|does not go with"), ("mpnet", "sees the order")],
)
def test_an_encoder_that_sees_the_order_otherwise_is_refused(
    family: str, reason: str, documents: list[Document], tmp_path: Path
) -> None:
    folder = str(make_encoder(tmp_path / "encoder", family, documents))
    with pytest.raises(UserError, match=f"--backbone restarted: .*({reason}).*use --backbone joint or hierarchical"):
        SentenceOrderer.from_encoder(folder, backbone="restarted")


@pytest.mark.parametrize(
    ("family", "shares"),
    [
        ("bert", True),
        ("roberta", True),
        ("electra", True),
        ("distilbert", True),
        ("modernbert", True),  # local attention too, which goes by the distance in a sentence
        ("deberta-v2", False),
        ("mpnet", False),
    ],
)
@pytest.mark.parametrize("pooling", ["marker", "mean", "both"])
def test_sentences_that_share_a_row_come_out_as_alone(
    pooling: str, family: str, shares: bool, tiny_encoder: str, documents: list[Document], tmp_path: Path
) -> None:
    """And so do their gradients; with an encoder that would mix them each group of like length has its own pass."""
    encoder = tiny_encoder if family == "bert" else str(make_encoder(tmp_path / "encoder", family, documents))
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(encoder, backbone="sentence", pooling=pooling, dropout=0.0)
    backbone = model.backbone
    assert backbone.shares_rows is shares
    texts = [[" ".join(s.split()[: 1 + n % 3]) for n, s in enumerate(d.sentences)] for d in documents[:5]]
    batch = batch_of(model, texts)
    rows: list[tuple[int, ...]] = []
    backbone.encoder.register_forward_pre_hook(
        lambda _, __, given: rows.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )

    def one_by_one() -> torch.Tensor:
        ids, mask = batch["input_ids"][batch["slot_mask"]], batch["attention_mask"][batch["slot_mask"]]
        alone = [backbone.read(row[None], kept[None], together=False) for row, kept in zip(ids, mask, strict=True)]
        return torch.cat(alone)

    found = []
    for states_of in (lambda: model(**batch).slot_states[batch["slot_mask"]], one_by_one):
        rows.clear()
        states = states_of()
        model.zero_grad()
        states.square().sum().backward()
        gradients = [p.grad.flatten() for p in backbone.parameters() if p.grad is not None]
        found.append((states.detach(), torch.cat(gradients), list(rows)))
    together, alone = found
    if shares:
        assert len(together[2]) == 1 and together[2][0][0] == 1
    else:
        assert 1 <= len(together[2]) < len(alone[2]) / 2
    # Hardly any padding is computed.
    tokens = int(batch["attention_mask"].sum())
    assert tokens <= sum(height * width for height, width in together[2]) <= (1.15 if shares else 2) * tokens
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[1], alone[1], atol=1e-5 * float(alone[1].abs().max()), rtol=1e-3)


@pytest.mark.parametrize("backbone", ["joint", "restarted", "hierarchical", "sentence"])
def test_a_document_is_the_same_in_every_batch(backbone: str, tiny_encoder: str, documents: list[Document]) -> None:
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(tiny_encoder, backbone=backbone).eval()
    texts = [["One.", "Two words."], *(document.sentences for document in documents[:3]), ["Alone."]]
    with torch.no_grad():
        together = model(**batch_of(model, texts)).slot_states
        for row, text in enumerate(texts):
            alone = model(**batch_of(model, [text])).slot_states[0]
            torch.testing.assert_close(alone, together[row, : len(text)], atol=1e-5, rtol=1e-4)
            assert (together[row, len(text) :] == 0).all()


def test_hierarchical_reads_more_sentences_than_the_encoder_has_tokens(tiny_encoder: str) -> None:
    torch.manual_seed(0)
    long = [f"sentence number {number} of many" for number in range(300)]
    joint = SentenceOrderer.from_encoder(tiny_encoder, backbone="joint", max_length=64)
    with pytest.raises(UserError, match="300 sentences.*--backbone hierarchical"):
        joint.order([long])
    model = SentenceOrderer.from_encoder(tiny_encoder, max_length=64, backbone="hierarchical")
    (found,) = model.order([long])
    assert sorted(found.order) == list(range(300))
    # The window is that of a sentence: what is longer is cut, and counted.
    table = model.tokenize(to_dataset([Document("x", ["the " * 100, "The end."])]))
    first, second = (len(ids) for ids in table["sentence_ids"][0])
    assert first == 63 and second < 20 and table["cut"][0] > 0


def test_what_is_new_learns_at_the_rate_of_the_head(tiny_encoder: str) -> None:
    for backbone, new in (("restarted", "backbone.same_sentence"), ("hierarchical", "backbone.document.")):
        model = SentenceOrderer.from_encoder(tiny_encoder, backbone=backbone)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = parameter_groups(model, learning_rate=1.0, head_learning_rate=2.0, weight_decay=0.1)
        for group in groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                assert group["lr"] == (2.0 if name.startswith(("head.", new)) else 1.0), name


@pytest.mark.parametrize("backbone", ["restarted", "hierarchical"])
def test_it_is_saved_and_loaded_and_runs_in_bfloat16(
    backbone: str, tiny_encoder: str, documents: list[Document], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(tiny_encoder, method="joint", backbone=backbone).eval()
    batch = batch_of(model, [document.sentences for document in documents[:3]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    loss = model.method.training_loss(output, batch)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.save_pretrained(tmp_path / "model")
    again = SentenceOrderer.from_pretrained(tmp_path / "model")
    assert again.config.backbone == backbone
    with torch.no_grad():
        assert torch.equal(again(**batch).pair_logits, model(**batch).pair_logits)


def test_weights_of_another_kind_are_refused(tiny_encoder: str, tmp_path: Path) -> None:
    """Random layers must not order texts because somebody changed the configuration."""
    SentenceOrderer.from_encoder(tiny_encoder, method="pointer").save_pretrained(tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    for name, value in (("backbone", "joint"), ("method", "pointer-pairs"), ("method", "pairwise")):
        given = json.loads(config.read_text())
        config.write_text(json.dumps(given | {name: value}))
        with pytest.raises(UserError, match="the weights are not those of its config.json"):
            SentenceOrderer.from_pretrained(tmp_path / "m")
        config.write_text(json.dumps(given))
    assert SentenceOrderer.from_pretrained(tmp_path / "m").config.method == "pointer"


def test_heads_compute_in_float32_whatever_the_encoder_does(tiny_encoder: str) -> None:
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(tiny_encoder, method="position", backbone="hierarchical").eval()
    batch = batch_of(model, [[f"sentence {number}" for number in range(120)]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    assert output.position_logits.dtype == torch.float32
    assert output.position_logits[0, 0].unique().numel() == 120  # in bfloat16 some positions would fall together


@pytest.mark.parametrize(
    "wrong", [{"num_permutations": 0}, {"num_refeeds": -1}, {"num_permutations": 1.5}, {"decoder": "x"}]
)
def test_decoding_settings_are_checked(wrong: dict[str, Any], tiny_encoder: str) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, backbone="joint")
    model.set_decoding(decoder="borda", num_permutations=2)
    with pytest.raises(UserError, match="must be a whole number|There is no decoder"):
        model.set_decoding(**wrong)
    assert model.decoding.decoder == "borda"
    model.set_decoding()
    assert model.decoding == (None, 1, 0, None)


def test_the_most_demanding_documents(tiny_encoder: str) -> None:
    rows = [["a b"] * 9, ["word " * 60, "b"], ["a b c d e f"] * 4, ["a"] * 2]
    model = SentenceOrderer.from_encoder(tiny_encoder)
    table = model.tokenize(to_dataset([Document(str(i), row) for i, row in enumerate(rows)]))
    assert [most_demanding(table, size) for size in (1, 3)] == [[1], [1, 2, 0]]

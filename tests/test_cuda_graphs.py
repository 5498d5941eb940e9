"""What surrounds the recording of passes, as far as it can be seen without a GPU; the rest is in test_gpu.py."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from sentorder import SentenceOrderer
from sentorder.contracts import OrderingOutput
from sentorder.cuda_graphs import Recordings, _in_place_of, _reaches, _state, recorded_loss
from sentorder.data.collation import EncodedDocument, JointCollator, SentenceCollator
from sentorder.data.sampling import PlannedDocument
from sentorder.losses import pairwise_logistic


def modes_of(module: nn.Module) -> tuple[Any, ...]:
    found = _state(module)
    assert found is not None
    return found[1]


def test_on_a_cpu_nothing_is_recorded() -> None:
    recordings, calls = Recordings(), []

    def doubles(inputs: Any) -> Any:
        calls.append(1)
        return {"y": 2 * inputs["x"]}

    for number in range(4):
        assert recordings(doubles, {"x": torch.tensor([number])})["y"].item() == 2 * number
    assert len(calls) == 4 and len(recordings) == 0


def test_copies_are_empty_and_keep_the_settings(tiny_encoder: str) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder)
    assert model.recordings.most_numbers * 32**2 == 2**32
    model.recordings.enabled = False
    model.recordings._seen.add("something")
    for other in (copy.deepcopy(model).recordings, pickle.loads(pickle.dumps(model.recordings))):
        assert not other.enabled and other.most_numbers == model.recordings.most_numbers and not other._seen


def test_a_pass_depends_on_modes_and_rates_of_dropout() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.MultiheadAttention(2, 1, dropout=0.1))
    seen = [modes_of(module)]
    module.eval()
    seen.append(modes_of(module))
    module.train()
    assert modes_of(module) == seen[0]
    module[1].p = 0.2
    seen.append(modes_of(module))
    module[2].dropout = 0.2
    seen.append(modes_of(module))
    assert len(set(seen)) == 4


def test_weights_are_found_once_and_in_order() -> None:
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    second.weight = first.weight
    found = _state(nn.ModuleList([first, second]))
    assert found is not None and len(found[0]) == 3
    assert _state(None) == ([], ())


def test_what_runs_in_python_alone_is_not_recorded() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        handle = getattr(module[0], register)(lambda *_: None)
        assert _state(module) is None
        handle.remove()
        assert _state(module) is not None
    module[0].compile(backend="eager")
    assert _state(module) is None


def test_other_weights_in_their_place_and_back() -> None:
    """A GRU moves weights that it does not know to a new place, at its next pass: it must not come to that."""
    module = nn.ModuleDict({"memory": nn.GRU(4, 4, batch_first=True), "key": nn.Linear(4, 4)})
    inputs = torch.randn(2, 3, 4)
    weights = list(module.parameters())
    others = [nn.Parameter(weight.detach() * 2) for weight in weights]
    places = [one.data_ptr() for one in (*weights, *others)]
    before = module["key"](module["memory"](inputs)[0])
    with _in_place_of(weights, others, module):
        assert not module["memory"]._weights_have_changed()
        output = module["key"](module["memory"](inputs)[0])
        assert all(found is other for found, other in zip(module.parameters(), others, strict=True))
    assert not torch.allclose(output, before)
    assert _reaches(output, [*others, *weights]) == [True] * 6 + [False] * 6
    assert _reaches(module["memory"](inputs)[0], weights) == [True] * 4 + [False] * 2
    assert not module["memory"]._weights_have_changed()
    torch.testing.assert_close(module["key"](module["memory"](inputs)[0]), before)
    assert [one.data_ptr() for one in (*weights, *others)] == places
    assert all(found is weight for found, weight in zip(module.parameters(), weights, strict=True))


def test_a_loss_is_the_same() -> None:
    output = OrderingOutput(pair_logits=torch.randn(2, 3, 3))
    batch: Any = {"slot_mask": torch.ones(2, 3, dtype=torch.bool), "positions": torch.tensor([[2, 0, 1], [0, 1, 2]])}
    assert torch.equal(recorded_loss(pairwise_logistic)(output, batch), pairwise_logistic(output, batch))


@pytest.mark.parametrize("kind", [JointCollator, SentenceCollator])
def test_few_widths_but_none_that_is_too_wide(kind: type[JointCollator | SentenceCollator]) -> None:
    collator = kind(1, 0, seed=0, most_tokens=20)
    collator.width_step = 8
    for length, width in ((3, 8), (7, 8), (8, 16), (18, 20), (19, 20)):  # and the marker
        batch = collator([EncodedDocument(PlannedDocument(0, 0, 1.0), [[5] * length])])
        assert batch["input_ids"].shape[-1] == width
        assert int(batch["attention_mask"].sum()) == length + 1
    collator = kind(1, 0, seed=0)
    collator.width_step = 8
    assert collator([EncodedDocument(PlannedDocument(0, 0, 1.0), [[5] * 20])])["input_ids"].shape[-1] == 24


@pytest.mark.parametrize("pooling", ["marker", "mean", "both"])
def test_all_slots_at_once_give_the_states_of_groups(tiny_encoder: str, pooling: str) -> None:
    """What a GPU computes without asking, against what a CPU does."""
    model = SentenceOrderer.from_encoder(tiny_encoder, backbone="hierarchical", pooling=pooling).eval()
    random = torch.Generator().manual_seed(0)
    documents = []
    for row, lengths in enumerate([[3, 9, 4, 11, 2], [7, 1], [5]]):
        ids = [torch.randint(5, model.config.tokenizer_size, (n,), generator=random).tolist() for n in lengths]
        documents.append(EncodedDocument(PlannedDocument(0, row, 1.0), ids))
    batch = model.collator(seed=0)(documents)
    backbone = model.backbone
    with torch.no_grad():
        ids, mask = batch["input_ids"][batch["slot_mask"]], batch["attention_mask"][batch["slot_mask"]]
        groups = backbone.read(ids, mask, together=True)
        at_once = backbone._all_in_one(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(at_once[batch["slot_mask"]], groups, rtol=1e-4, atol=1e-5)
    assert torch.equal(at_once[~batch["slot_mask"]], torch.zeros(7, 32))

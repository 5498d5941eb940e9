"""What only a GPU can show; skipped where there is none: ``pytest -m gpu``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sentorder import SentenceOrderer, TrainArguments
from sentorder.contracts import Batch
from sentorder.cuda_graphs import Recordings, recorded_loss
from sentorder.data.collation import EncodedDocument, Shape
from sentorder.data.sampling import PlannedDocument
from sentorder.loop import train_steps
from sentorder.optimization import adamw, parameter_groups
from sentorder.runtime import accelerator_for
from sentorder.train import train
from tests.conftest import read_metrics

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("method", ["regression", "pairwise", "pointer"])
def test_training_in_bf16(tiny_encoder: str, small_data: str, tmp_path: Path, method: str) -> None:
    arguments = TrainArguments(
        model_name_or_path=tiny_encoder, dataset=small_data, method=method, mixed_precision="bf16", max_steps=6,
        learning_rate=1e-3, logging_steps=1, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    result = train(arguments)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert len(losses) == 6 and min(losses[3:]) < losses[0]
    assert result.test is not None and result.test["documents"] == 7
    model = SentenceOrderer.from_pretrained(result.model_dir)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_first_loss_is_that_of_the_cpu(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    losses = []
    for name in ("gpu", "cpu"):
        arguments = TrainArguments(
            model_name_or_path=tiny_encoder, dataset=small_data, max_steps=1, logging_steps=1,
            eval_strategy="no", output_dir=str(tmp_path / name),
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            if name == "cpu":
                patch.setenv("ACCELERATE_USE_CPU", "true")
            train(arguments)
        losses.append(read_metrics(tmp_path / name)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_batches_are_pinned_and_copied_while_the_device_works() -> None:
    with accelerator_for(mixed_precision="no", cpu_threads=None) as accelerator:
        assert accelerator.non_blocking
        loader = accelerator.prepare(DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4, pin_memory=True))
        assert [batch[0].device.type for batch in loader] == ["cuda", "cuda"]


def test_the_loop_does_not_wait_for_the_device_between_logs() -> None:
    """Any wait of the host raises here, but for the last step, at which the loop looks whether all were finite."""
    accelerator: Accelerator
    with accelerator_for(mixed_precision="bf16", cpu_threads=None) as accelerator:
        data = TensorDataset(torch.randn(64, 16), torch.randn(64, 16))
        loader = DataLoader(data, batch_size=8, pin_memory=True)
        model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        optimizer = adamw(parameter_groups(model, learning_rate=1e-3, weight_decay=0.0))
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        steps = train_steps(
            accelerator, model, optimizer, None, loader,
            lambda output, batch: ((output - batch[1]) ** 2).mean(dim=1),
            max_steps=12, forward=lambda model, batch: model(batch[0]), check_finite_every=6,
            weights_of=lambda batch: torch.ones(len(batch[0]), device=batch[0].device),
        )  # fmt: skip
        try:
            for step in steps:
                waits = (step.number + 1) % 6 == 0
                torch.cuda.set_sync_debug_mode("error" if step.number > 1 and not waits else "default")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert step.number == 12


# --- passes that are recorded and replayed ----------------------------------------------------------------------------


def batches(model: SentenceOrderer, *, epoch: int = 0) -> list[Batch]:
    """Two of one shape, then two of another, on the GPU; documents of 4 and 5 sentences with tokens by chance."""
    random = torch.Generator().manual_seed(epoch)
    found = []
    for tokens in (20, 20, 30, 30):
        shape = Shape(tokens if model.reading.per_sentence else 5 * tokens, 5)
        documents = []
        for row in range(4):
            lengths = torch.randint(3, tokens - 1, (4 + row % 2,), generator=random).tolist()
            ids = [torch.randint(5, model.config.tokenizer_size, (n,), generator=random).tolist() for n in lengths]
            documents.append(EncodedDocument(PlannedDocument(epoch, row, 1.0), ids))
        found.append(send_to_device(model.collator(seed=0, shape=shape)(documents), torch.device("cuda")))
    return found


def losses_and_weights(
    model: SentenceOrderer, *, micro_batches: int = 1, bf16: bool = False
) -> tuple[list[float], list[torch.Tensor]]:
    """Of 16 steps with plain SGD."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    loss_of = recorded_loss(model.method.training_loss, enabled=model.recordings.enabled)
    model.train()
    for epoch in range(4):
        for number, batch in enumerate(batches(model, epoch=epoch), start=1):
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                output = model(**batch)
            loss = loss_of(output, batch).mean()
            loss.backward()
            losses.append(loss.item())
            if number % micro_batches == 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    return losses, [weight.detach().clone() for weight in model.parameters()]


@pytest.fixture
def pair(tiny_encoder: str, request: pytest.FixtureRequest) -> Iterator[tuple[SentenceOrderer, SentenceOrderer]]:
    """A model that records, and one that does not."""
    torch.manual_seed(1)
    model = SentenceOrderer.from_encoder(tiny_encoder, **{"dropout": 0.1, **request.param}).cuda()
    other = copy.deepcopy(model)
    other.recordings.enabled = False
    yield model, other


KINDS = [
    {"method": "joint"}, {"method": "regression", "backbone": "joint"}, {"method": "pointer", "backbone": "restarted"},
]  # fmt: skip


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_replayed_passes_teach_what_the_others_do(
    pair: tuple[SentenceOrderer, SentenceOrderer], micro_batches: int, bf16: bool
) -> None:
    """Dropout, weights, several shapes, gradients that add up: all as without."""
    recorded, plain = pair
    ours, our_weights = losses_and_weights(recorded, micro_batches=micro_batches, bf16=bf16)
    theirs, their_weights = losses_and_weights(plain, micro_batches=micro_batches, bf16=bf16)
    assert len(recorded.recordings) == 2 and len(plain.recordings) == 0
    assert ours == pytest.approx(theirs, rel=2e-2 if bf16 else 1e-4)
    assert len(set(ours)) > 4
    for mine, other in zip(our_weights, their_weights, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-2 if bf16 else 1e-3, atol=5e-3 if bf16 else 1e-5)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_replayed_evaluation_gives_the_same_states(pair: tuple[SentenceOrderer, SentenceOrderer]) -> None:
    recorded, plain = (model.eval() for model in pair)
    for context in (torch.no_grad, torch.inference_mode, torch.no_grad):
        for _ in range(3):
            for batch in batches(recorded):
                with context():
                    ours, theirs = recorded(**batch).slot_states, plain(**batch).slot_states
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(recorded.recordings) == 2
    recorded.train()
    losses_and_weights(recorded)
    assert len(recorded.recordings) == 4


@pytest.mark.parametrize("pair", [{"method": "joint", "dropout": 0.0}], indirect=True)
def test_what_a_replay_would_spoil_is_not_replayed(pair: tuple[SentenceOrderer, SentenceOrderer]) -> None:
    """Two forward passes before the first backward pass; weights that were frozen; hooks."""
    recorded, plain = pair
    losses_and_weights(recorded)
    losses_and_weights(plain)
    first, second, *_ = batches(recorded)
    for model in pair:
        loss = (model(**first).slot_states.square().mean() - 2 * model(**second).slot_states.abs().mean()).sum()
        loss.backward()
    for mine, other in zip(recorded.parameters(), plain.parameters(), strict=True):
        if other.grad is None:
            assert mine.grad is None
        else:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-5)
    output = recorded(**first)
    loss = output.slot_states.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()
    del output, loss
    recorded.backbone.encoder.get_input_embeddings().weight.requires_grad_(False)
    recorded.zero_grad()
    losses_and_weights(recorded)
    assert recorded.backbone.encoder.get_input_embeddings().weight.grad is None
    assert len(recorded.recordings) == 2
    seen: list[int] = []
    handle = recorded.backbone.encoder.get_input_embeddings().register_forward_hook(lambda *_: seen.append(1))
    recorded(**first)
    handle.remove()
    recorded(**first)
    assert seen == [1]


def test_a_default_step_does_not_wait_for_the_device(tiny_encoder: str) -> None:
    with accelerator_for(mixed_precision="bf16", cpu_threads=None) as accelerator:
        model = SentenceOrderer.from_encoder(tiny_encoder, dropout=0.1)
        optimizer = adamw(parameter_groups(model, learning_rate=1e-3, weight_decay=0.0))
        loss_of = recorded_loss(model.method.training_loss)
        loader = [batch for _ in range(4) for batch in batches(model)]
        prepared, optimizer = accelerator.prepare(model, optimizer)
        steps = train_steps(
            accelerator, prepared, optimizer, None, loader, loss_of, max_steps=16, check_finite_every=16
        )
        try:
            for step in steps:  # by the eighth all shapes are recorded
                torch.cuda.set_sync_debug_mode("error" if 8 <= step.number < 15 else "default")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert step.number == 16 and len(model.recordings) == 2


def test_what_cannot_be_recorded_runs_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    """Here one that asks the device; and dropout goes on drawing numbers afterwards."""
    recordings = Recordings()
    weight = nn.Linear(4, 4).cuda()

    def asks(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inner = nn.functional.dropout(weight(inputs["x"]), 0.5)
        return {"y": inner * inner.sum().item()}

    def doubles(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"y": nn.functional.dropout(2 * weight(inputs["x"]), 0.5)}

    x = torch.randn(3, 4, device="cuda")
    for _ in range(4):
        recordings(asks, {"x": x}, weight)["y"].sum().backward()
    assert len(recordings) == 0
    assert [record.name for record in caplog.records] == ["sentorder.cuda_graphs"]
    assert len({tuple(nn.functional.dropout(x, 0.5).flatten().tolist()) for _ in range(4)}) > 1
    recordings = Recordings()
    found = [tuple(recordings(doubles, {"x": x}, weight)["y"].flatten().tolist()) for _ in range(8)]
    assert len(recordings) == 1 and len(set(found)) > 4

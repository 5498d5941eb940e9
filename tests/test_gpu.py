"""What only a GPU can show; skipped where there is none: ``pytest -m gpu``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sentorder import SentenceOrderer, TrainArguments
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

"""Memory that is too small, on a device that only pretends, and memory that is used again."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from sentorder import SentenceOrderer, TrainArguments, UserError
from sentorder.train import train
from tests.conftest import Run, read_metrics


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every training pass over more than so many documents run out of memory, as a GPU does."""
    original = SentenceOrderer.forward
    seen: list[int] = []

    def arm(most: int) -> list[int]:
        def forward(self: SentenceOrderer, **batch: Any) -> Any:
            size = batch["input_ids"].shape[0]
            if self.training:
                seen.append(size)
                if size > most:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return original(self, **batch)

        monkeypatch.setattr(SentenceOrderer, "forward", forward)
        return seen

    return arm


def arguments(encoder: str, data: str, folder: Path, **changes: Any) -> TrainArguments:
    values: dict[str, Any] = {"model_name_or_path": encoder, "dataset": data, "output_dir": str(folder)}
    return TrainArguments(**{**values, "max_steps": 5, "logging_steps": 1, "dropout": 0.0, **changes})


@pytest.mark.parametrize(("most", "tried"), [(99, [8]), (7, [8, 4]), (3, [8, 4, 2])])
def test_a_step_is_cut_up_until_it_fits_and_keeps_its_numbers(
    tiny_encoder: str, small_data: str, tmp_path: Path, room_for: Any, most: int, tried: list[int]
) -> None:
    train(arguments(tiny_encoder, small_data, tmp_path / "whole"))
    seen = room_for(most)
    train(arguments(tiny_encoder, small_data, tmp_path / "cut", auto_find_batch_size=True))
    assert seen[: len(tried)] == tried and max(seen[len(tried) :]) <= min(most, 8)
    whole, cut = ([row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row] for name in ("whole", "cut"))
    assert cut == pytest.approx(whole, rel=1e-6)


def test_a_document_that_does_not_fit_is_an_error(
    tiny_encoder: str, small_data: str, tmp_path: Path, room_for: Any
) -> None:
    assert room_for(0) == []
    with pytest.raises(UserError, match="not even the longest document fits into memory"):
        train(arguments(tiny_encoder, small_data, tmp_path / "run", auto_find_batch_size=True))
    assert not (tmp_path / "run").exists()


def test_out_of_memory_names_the_flag_and_what_is_left(
    tiny_encoder: str, small_data: str, tmp_path: Path, room_for: Any
) -> None:
    room_for(4)
    with pytest.raises(UserError, match="out of memory .*--auto_find_batch_size.*Checkpoints .* are intact"):
        train(arguments(tiny_encoder, small_data, tmp_path / "run"))


def test_an_error_that_is_none_of_memory_is_not_taken_for_one(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: SentenceOrderer, **batch: Any) -> Any:
        raise RuntimeError("a mistake in somebody's model")

    monkeypatch.setattr(SentenceOrderer, "forward", forward)
    with pytest.raises(RuntimeError, match="a mistake in somebody's model"):
        train(arguments(tiny_encoder, small_data, tmp_path / "run", auto_find_batch_size=True, eval_strategy="no"))


def test_a_broken_evaluation_fails_before_training(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, trained = SentenceOrderer.forward, []

    def forward(self: SentenceOrderer, **batch: Any) -> Any:
        trained.append(self.training)
        if not self.training:
            raise RuntimeError("only evaluation is broken")
        return original(self, **batch)

    monkeypatch.setattr(SentenceOrderer, "forward", forward)
    with pytest.raises(RuntimeError, match="only evaluation is broken"):
        train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    assert trained == [False] and not (tmp_path / "run").exists()


TAKE_AND_LEAVE = """
import os, resource
import torch
from sentorder.runtime import accelerator_for

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

unprepared = pages()
with accelerator_for(mixed_precision=None, cpu_threads=1):
    pages()
    print(unprepared, pages(), os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_left_is_taken_again(run: Run, tmp_path: Path) -> None:
    """A tensor of 64 MB costs no new pages of the system once there has been one."""
    (tmp_path / "take.py").write_text(TAKE_AND_LEAVE)
    for given in ({}, {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}):
        result = run("python", str(tmp_path / "take.py"), **given)
        assert result.returncode == 0, result.stderr
        unprepared, prepared, kernels = map(int, result.stdout.split())
        assert prepared < unprepared / 8
        assert kernels == int(given.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", 64))

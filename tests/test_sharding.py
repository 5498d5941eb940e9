"""Weights split among processes: the same steps, the same files, and back again."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from sentorder.arguments import TrainArguments
from sentorder.errors import UserError
from sentorder.train import train
from tests.conftest import REPOSITORY, Run, read_metrics

LESS_EXACT = ("key.bias", "in_proj_bias")
"""Their true gradient is zero, and Adam makes steps of what rounding leaves of it."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The launch file for GPUs, told to take two CPU processes."""
    settings = yaml.safe_load((REPOSITORY / "accelerate_configs" / "fsdp2.yaml").read_text())
    settings |= {"use_cpu": True, "num_processes": 2, "mixed_precision": "no"}
    settings |= {"main_process_ip": "127.0.0.1", "main_process_port": 29533}
    (tmp_path / "fsdp2.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "fsdp2.yaml"


@pytest.mark.slow
def test_split_weights_learn_and_are_saved_as_whole_ones(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path, config: Path
) -> None:
    """Losses, weights and orders are those of one process, and each can go on from a checkpoint of the other."""
    split = ["accelerate", "launch", "--config_file", str(config), str(REPOSITORY / "tests" / "fsdp_on_cpu.py")]
    one = ["python", "-m", "sentorder.train"]
    common = ["--model_name_or_path", tiny_encoder, "--dataset", small_data, "--learning_rate", "1e-3"]
    common += ["--max_steps", "7", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "1"]
    common += ["--save_total_limit", "9", "--dropout", "0"]
    cut = {"split": ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]}
    cut["whole"] = ["--per_device_train_batch_size", "8"]
    runs = {name: tmp_path / name for name in ("whole", "split", "split, whole", "whole, split")}

    def train_in(name: str, *more: str) -> None:
        last = name.split(", ")[-1]
        command = split if last == "split" else one
        result = run(*command, *common, *cut[last], "--output_dir", str(runs[name]), *more)
        assert result.returncode == 0, result.stderr

    train_in("whole")
    train_in("split")
    for name in ("split, whole", "whole, split"):
        shutil.copytree(runs[name.split(", ")[0]], runs[name])
        (runs[name] / "result.json").unlink()
        for step in (5, 6, 7):
            shutil.rmtree(runs[name] / f"checkpoint-{step}")
        train_in(name, "--resume_from_checkpoint", "auto")

    whole = read_metrics(runs["whole"])
    weights = load_file(runs["whole"] / "checkpoint-7" / "model.safetensors")
    for name, folder in runs.items():
        rows = read_metrics(folder)
        assert len(rows) == len(whole)
        for ours, theirs in zip(rows, whole, strict=True):
            for key, tolerance in (("loss", 1e-5), ("gradient_norm", 1e-3), ("eval_loss", 1e-4), ("test_loss", 1e-4)):
                assert (key in ours) == (key in theirs)
                assert key not in ours or ours[key] == pytest.approx(theirs[key], rel=tolerance), (name, ours["step"])
        found = load_file(folder / "checkpoint-7" / "model.safetensors")
        assert found.keys() == weights.keys()
        for key, tensor in found.items():
            tolerance = 1e-2 if key.endswith(LESS_EXACT) else 1e-4
            assert torch.allclose(tensor, weights[key], rtol=0, atol=tolerance), (name, key)
        assert sorted(path.name for path in (folder / "model").iterdir()) == sorted(
            path.name for path in (runs["whole"] / "model").iterdir()
        )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("DEEPSPEED", "DEEPSPEED makes the optimizer step inside of the backward pass"),
        ("MEGATRON_LM", "MEGATRON_LM makes the optimizer step"),
        ("FSDP", "FSDP: version 1 is not supported; set fsdp_version: 2"),
    ],
)
def test_what_hides_the_step_is_refused(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[kind])
    monkeypatch.setattr(Accelerator, "is_fsdp2", False)
    with pytest.raises(UserError, match=message):
        train(TrainArguments(model_name_or_path=tiny_encoder, dataset=small_data, output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_weights_that_would_not_be_split_are_refused(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path, config: Path
) -> None:
    result = run(
        *("accelerate", "launch", "--config_file", str(config), "-m", "sentorder.train"),
        *("--model_name_or_path", tiny_encoder, "--dataset", small_data, "--output_dir", str(tmp_path / "run")),
    )
    assert result.returncode != 0
    assert "FSDP: Accelerate splits no weights among CPU processes" in result.stderr
    assert not (tmp_path / "run").exists()

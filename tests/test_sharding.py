"""Training that is split among processes: the same steps, the same files, and back again."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from transformers import AlbertConfig, AutoModel, BertConfig, DistilBertConfig, ModernBertConfig

from sentorder import SentenceOrderer
from sentorder.arguments import TrainArguments
from sentorder.errors import UserError
from sentorder.optimization import parameter_groups
from sentorder.sharding import layer_classes
from sentorder.train import train
from tests.conftest import REPOSITORY, Run, read_metrics

LESS_EXACT = ("key.bias", "in_proj_bias")
"""Their true gradient is zero, and Adam makes steps of what rounding leaves of it."""
ON_CPU = str(REPOSITORY / "tests" / "split_on_cpu.py")
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="the extra deepspeed is not installed")


def launch(name: str, folder: Path, precision: str = "no") -> list[str]:
    """The command that starts two CPU processes with a launch file for GPUs."""
    settings = yaml.safe_load((REPOSITORY / "accelerate_configs" / name).read_text())
    settings |= {"use_cpu": True, "num_processes": 2, "mixed_precision": precision}
    settings |= {"main_process_ip": "127.0.0.1", "main_process_port": 29533}
    if "deepspeed_config" in settings:  # steps are the command's business
        settings["deepspeed_config"]["gradient_accumulation_steps"] = 4
    (folder / name).write_text(yaml.safe_dump(settings))
    return ["accelerate", "launch", "--config_file", str(folder / name)]


def common(encoder: str, data: str) -> list[str]:
    """Of all runs: seven steps, all of them clipped; the first one is kept, as none is better: no order is perfect."""
    return [
        *("--model_name_or_path", encoder, "--dataset", data, "--learning_rate", "1e-3", "--dropout", "0"),
        *("--max_steps", "7", "--logging_steps", "1", "--eval_strategy", "steps", "--eval_steps", "1"),
        *("--metric_for_best_model", "perfect_match_ratio", "--max_grad_norm", "0.05"),
    ]


def told(stderr: str) -> dict[str, Any]:
    """What the script above says about itself."""
    (line, *_) = (line for line in stderr.splitlines() if line.startswith('{"groups"'))
    found: dict[str, Any] = json.loads(line)
    return found


def groups_of(encoder: str) -> dict[str, int]:
    """What each group of the optimizer is given on one process."""
    groups = parameter_groups(SentenceOrderer.from_encoder(encoder), learning_rate=1.0, weight_decay=1.0)
    return {group["name"]: sum(weights.numel() for weights in group["params"]) for group in groups}


WHOLE = ["--per_device_train_batch_size", "8"]
CUT = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]


def assert_same_training(folder: Path, whole: Path) -> None:
    """The same losses, norms, scores and kept weights."""
    rows, others = read_metrics(folder), read_metrics(whole)
    assert len(rows) == len(others)
    for ours, theirs in zip(rows, others, strict=True):
        for key, tolerance in (("loss", 1e-5), ("gradient_norm", 1e-3), ("eval_loss", 1e-4), ("test_loss", 1e-4)):
            assert (key in ours) == (key in theirs)
            close = pytest.approx(theirs.get(key) or 0.0, rel=tolerance)  # of a step that was left out both have null
            assert ours.get(key) == theirs.get(key) or ours[key] == close, (folder, ours["step"], key)
        assert ours.get("learning_rate") == theirs.get("learning_rate")
    names = [sorted(path.name for path in (place / "model").iterdir()) for place in (folder, whole)]
    assert names[0] == names[1]
    assert json.loads((folder / "result.json").read_text())["best_step"] == 1
    assert_same_weights(folder / "model", whole / "model")


def assert_same_but_for_bf16(folder: Path, whole: Path) -> None:
    """In bf16 it is computed, and not kept."""
    ours, theirs = ([row["loss"] for row in read_metrics(place) if "loss" in row] for place in (folder, whole))
    assert ours == pytest.approx(theirs, rel=5e-3) and ours != pytest.approx(theirs, rel=1e-6)
    weights = load_file(folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert "mixed_precision: bf16" in (folder / "arguments.yaml").read_text()


def assert_same_weights(folder: Path, whole: Path) -> None:
    ours, theirs = (load_file(place / "model.safetensors") for place in (folder, whole))
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        tolerance = 1e-2 if key.endswith(LESS_EXACT) else 1e-4
        assert torch.allclose(tensor, theirs[key], rtol=0, atol=tolerance), (folder, key)


@pytest.mark.slow
def test_split_weights_learn_and_are_saved_as_whole_ones(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    """With FSDP2; and each can go on from a checkpoint of the other."""
    commands = {"whole": ["python", "-m", "sentorder.train", *WHOLE]}
    commands["split"] = [*launch("fsdp2.yaml", tmp_path), ON_CPU, *CUT]
    saving = ["--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "9"]
    runs = {name: tmp_path / name for name in ("whole", "split", "split, whole", "whole, split")}

    def train_in(name: str, *more: str) -> None:
        command = commands[name.split(", ")[-1]]
        result = run(*command, *common(tiny_encoder, small_data), *saving, "--output_dir", str(runs[name]), *more)
        assert result.returncode == 0, result.stderr
        if command is not commands["whole"]:
            assert told(result.stderr)["units"] == {"FSDPBertLayer": 2, "FSDPEmbedding": 1, "FSDPSentenceOrderer": 1}

    train_in("whole")
    train_in("split")
    for name in ("split, whole", "whole, split"):
        shutil.copytree(runs[name.split(", ")[0]], runs[name])
        (runs[name] / "result.json").unlink()
        for step in (5, 6, 7):
            shutil.rmtree(runs[name] / f"checkpoint-{step}")
        train_in(name, "--resume_from_checkpoint", "auto")
    for name in ("split", "split, whole", "whole, split"):
        assert_same_training(runs[name], runs["whole"])
        assert_same_weights(runs[name] / "checkpoint-7", runs["whole"] / "checkpoint-7")
    commands["rounded"], runs["rounded"] = (
        [*launch("fsdp2.yaml", tmp_path, "bf16"), ON_CPU, *CUT],
        tmp_path / "rounded",
    )
    train_in("rounded")
    assert_same_but_for_bf16(runs["rounded"], runs["whole"])


@pytest.mark.slow
@needs_deepspeed
def test_deepspeed_makes_the_same_steps(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """ZeRO 2, and 3 from a file of DeepSpeed's own, by which no weight is kept whole; and ZeRO 3 in bf16."""
    more = ["--save_strategy", "no"]
    own = {"stage": 3, "stage3_param_persistence_threshold": 0}
    (tmp_path / "own.json").write_text(json.dumps({"zero_optimization": own, "train_batch_size": 6}))
    own_command = launch("ds_z3.yaml", tmp_path)
    settings = yaml.safe_load((tmp_path / "ds_z3.yaml").read_text())
    settings["deepspeed_config"] = {"deepspeed_config_file": str(tmp_path / "own.json"), "zero3_init_flag": False}
    del settings["mixed_precision"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(settings))
    own_command[-1] = str(tmp_path / "own.yaml")
    whole = ["python", "-m", "sentorder.train", *WHOLE]
    for name, command in {
        "whole": whole,
        "ds_z2.yaml": [*launch("ds_z2.yaml", tmp_path), ON_CPU, *CUT],
        "own": [*own_command, ON_CPU, *CUT],
    }.items():
        folder = tmp_path / f"run {name}"
        result = run(*command, *common(tiny_encoder, small_data), *more, "--output_dir", str(folder))
        assert result.returncode == 0, result.stderr
        assert_same_training(folder, tmp_path / "run whole")
        assert name == "whole" or told(result.stderr)["groups"] == groups_of(tiny_encoder)
    command = [*launch("ds_z3.yaml", tmp_path, "bf16"), ON_CPU, *CUT, *common(tiny_encoder, small_data), *more]
    result = run(*command, "--output_dir", str(tmp_path / "rounded"))
    assert result.returncode == 0, result.stderr
    assert_same_but_for_bf16(tmp_path / "rounded", tmp_path / "run whole")


POISONED = """
import dataclasses, math
from sentorder.methods import METHODS
from tests import split_on_cpu

row, calls = METHODS["pairwise"], 0

def loss(output, batch):
    global calls
    calls += output.pair_logits.requires_grad
    return row.loss(output, batch) * (math.nan if calls == 4 else 1.0)

METHODS["pairwise"] = dataclasses.replace(row, loss=loss)
(split_on_cpu.split_main if SPLIT else lambda: split_on_cpu.run_command(split_on_cpu.main))()
"""


@pytest.mark.slow
@needs_deepspeed
def test_deepspeed_leaves_out_steps_that_are_not_finite(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    """The fourth one here, like the loop itself. And checkpoints that no run could go on from are refused."""
    commands = {"whole": ["python"], "split": launch("ds_z3.yaml", tmp_path)}
    more = ["--method", "pairwise", "--save_strategy", "no", "--max_skipped_steps", "1"]
    for name, command in commands.items():
        script, folder = tmp_path / f"{name}.py", tmp_path / f"run {name}"
        script.write_text(POISONED.replace("SPLIT", str(name != "whole")))
        command = [*command, str(script), *(WHOLE if name == "whole" else ["--per_device_train_batch_size", "4"])]
        command += [*common(tiny_encoder, small_data), "--output_dir", str(folder), *more]
        result = run(*command, PYTHONPATH=f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}")
        assert result.returncode == 0, result.stderr
        losses = [row["loss"] for row in read_metrics(folder) if "loss" in row]
        assert [loss is None for loss in losses] == [step == 4 for step in range(1, 8)]
        assert_same_training(folder, tmp_path / "run whole")
    result = run(*commands["split"], ON_CPU, *common(tiny_encoder, small_data), "--output_dir", str(tmp_path / "x"))
    assert result.returncode != 0 and "--save_strategy epoch: DeepSpeed keeps" in result.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (BertConfig(num_hidden_layers=2), ["BertLayer"]),
        (ModernBertConfig(num_hidden_layers=2), ["ModernBertEncoderLayer"]),
        (DistilBertConfig(n_layers=2), ["TransformerBlock"]),
        (AlbertConfig(), ["AlbertLayerGroup"]),
    ],
)
def test_layers_are_found(config: Any, layers: list[str]) -> None:
    with torch.device("meta"):
        encoder = AutoModel.from_config(config)
    assert layer_classes(encoder) == layers


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("MEGATRON_LM", "Megatron-LM: is not supported"),
        ("FSDP", "FSDP: version 1 is not supported; set fsdp_version: 2"),
    ],
)
def test_what_the_loop_does_not_know_is_refused(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[kind])
    monkeypatch.setattr(Accelerator, "is_fsdp2", False)
    with pytest.raises(UserError, match=message):
        train(TrainArguments(model_name_or_path=tiny_encoder, dataset=small_data, output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_would_not_be_split_is_refused(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    result = run(
        *(*launch("fsdp2.yaml", tmp_path), "-m", "sentorder.train", *common(tiny_encoder, small_data)),
        *("--output_dir", str(tmp_path / "run")),
    )
    assert result.returncode != 0
    assert "FSDP: Accelerate splits nothing among CPU processes" in result.stderr
    assert not (tmp_path / "run").exists()

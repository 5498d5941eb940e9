"""Going on with a run must lead to what the uninterrupted run leads to, bit by bit."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentorder import SentenceOrderer, TrainArguments, UserError
from sentorder.checkpoint import checkpoints_of
from sentorder.stopping import STOPPED_CODE, Stopped, StopRequests
from sentorder.train import train
from tests.conftest import Run, read_metrics


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets the next run be stopped after a step, as by a signal."""

    def arm(step: int | None, number: int = signal.SIGTERM) -> None:
        monkeypatch.setattr(StopRequests, "reason", lambda self, at: number if at == step else 0)

    return arm


def arguments(encoder: str, data: str, folder: Path, **changes: Any) -> TrainArguments:
    values: dict[str, Any] = {
        "model_name_or_path": encoder,
        "dataset": data,
        "output_dir": str(folder),
        "max_steps": 7,  # 21 documents, 8 a step: two epochs of three steps, and one more step
        "learning_rate": 1e-3,
        "logging_steps": 2,
        "dropout": 0.2,
        "resume_from_checkpoint": "auto",
    }
    return TrainArguments(**values | changes)


def log_of(folder: Path) -> list[dict[str, float]]:
    """All that is logged but the speed."""
    return [{k: v for k, v in row.items() if k != "documents_per_second"} for row in read_metrics(folder)]


def assert_same_run(a: Path, b: Path) -> None:
    assert log_of(a) == log_of(b)
    for name in ("result.json", "test_results.json", "predictions.jsonl"):
        assert (a / name).read_text() == (b / name).read_text()
    last = [checkpoints_of(folder)[0] for folder in (a, b)]
    for x, y in ((a / "model", b / "model"), last):
        weights, others = (load_file(folder / "model.safetensors") for folder in (x, y))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    moments = [torch.load(folder / "training" / "state.pt", weights_only=True)["optimizer"] for folder in last]
    assert moments[0]["param_groups"] == moments[1]["param_groups"]
    for one, other in zip(moments[0]["state"].values(), moments[1]["state"].values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tiny_encoder: str, small_data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(arguments(tiny_encoder, small_data, folder))
    return folder


@pytest.mark.parametrize("step", range(1, 7))
def test_stopped_after_any_step(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, stop_after: Any, step: int
) -> None:
    asked = arguments(tiny_encoder, small_data, tmp_path / "run")
    stop_after(step)
    with pytest.raises(Stopped) as stopped:
        train(asked)
    assert stopped.value.code == STOPPED_CODE == 75
    assert checkpoints_of(tmp_path / "run")[0].name == f"checkpoint-{step}"
    torch.rand(step)  # what another process would have drawn
    stop_after(None)
    train(asked)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataloader_num_workers": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"method": "pointer", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 5},
        {"mixed_precision": "bf16", "lr_scheduler_type": "cosine", "deterministic": True},
        {"log_with": ["tensorboard"], "eval_strategy": "no", "pad_to_max_length": True, "max_length": 256},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_stopped_in_the_middle_of_an_epoch(
    tiny_encoder: str, small_data: str, tmp_path: Path, stop_after: Any, changes: dict[str, Any]
) -> None:
    train(arguments(tiny_encoder, small_data, tmp_path / "whole", **changes))
    for step in (4, 5):
        stop_after(step)
        with pytest.raises(Stopped):
            train(arguments(tiny_encoder, small_data, tmp_path / "run", **changes))
    stop_after(None)
    train(arguments(tiny_encoder, small_data, tmp_path / "run", **changes))
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    if "log_with" in changes:
        for name in ("whole", "run"):
            events = EventAccumulator(str(tmp_path / name / "sentorder"))
            events.Reload()
            assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 7]


def test_steps_that_were_done_after_the_checkpoint_are_done_again_and_logged_once(
    tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    """As after a kill: the folder has logged more than its newest checkpoint knows."""
    logged = {"log_with": ["tensorboard"], "logging_steps": 1, "save_total_limit": 9}
    train(arguments(tiny_encoder, small_data, tmp_path / "whole", **logged))
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    for path in checkpoints_of(tmp_path / "run"):
        if path.name in ("checkpoint-6", "checkpoint-7"):
            shutil.rmtree(path)
    (tmp_path / "run" / "result.json").unlink()
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "lo')  # and was torn off in a line
    train(arguments(tiny_encoder, small_data, tmp_path / "run", **logged))
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    events = EventAccumulator(str(tmp_path / "run" / "sentorder"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 8))


def test_auto_starts_goes_on_and_says_that_it_is_finished(
    tiny_encoder: str, small_data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], stop_after: Any
) -> None:
    asked = arguments(tiny_encoder, small_data, tmp_path / "run")
    first = train(asked)
    before = log_of(tmp_path / "run")
    capsys.readouterr()
    assert train(asked) == first
    assert "this run is finished" in capsys.readouterr().out and log_of(tmp_path / "run") == before
    given_back = (tmp_path / "run" / "arguments.yaml").read_text()
    assert "resume_from_checkpoint: null" in given_back  # as --config it is a run of its own

    # A run that was killed before its first checkpoint begins anew.
    other = tmp_path / "killed"
    other.mkdir()
    shutil.copy(tmp_path / "run" / "arguments.yaml", other)
    (other / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    train(arguments(tiny_encoder, small_data, other))
    assert log_of(other) == before


def test_a_checkpoint_or_a_run_may_be_named(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, stop_after: Any
) -> None:
    named = {"output_dir": None, "resume_from_checkpoint": str(tmp_path / "run" / "checkpoint-3")}
    shutil.copytree(whole, tmp_path / "run")
    train(arguments(tiny_encoder, small_data, tmp_path, **named))
    assert_same_run(tmp_path / "run", whole)
    stop_after(4)
    with pytest.raises(Stopped):
        train(arguments(tiny_encoder, small_data, tmp_path / "other"))
    stop_after(None)
    train(
        arguments(tiny_encoder, small_data, tmp_path, output_dir=None, resume_from_checkpoint=str(tmp_path / "other"))
    )
    assert_same_run(tmp_path / "other", whole)


def test_every_checkpoint_is_a_model(tiny_encoder: str, small_data: str, tmp_path: Path, run: Run) -> None:
    train(arguments(tiny_encoder, small_data, tmp_path / "run", save_total_limit=9))
    found = checkpoints_of(tmp_path / "run")
    assert [path.name for path in found] == ["checkpoint-7", "checkpoint-6", "checkpoint-3"]
    orders = [SentenceOrderer.from_pretrained(path).order([["It set.", "The sun rose."]]) for path in found]
    assert {tuple(sorted(order[0].order)) for order in orders} == {(0, 1)}
    done = run("python", "-m", "sentorder.predict", "--model_path", str(found[1]), stdin="It set.\nThe sun rose.\n")
    assert done.returncode == 0 and sorted(done.stdout.split("\n"))[-2:] == ["It set.", "The sun rose."]


def test_the_newest_and_the_best_are_kept(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """With a learning rate of 0 the first evaluation is the best for ever."""
    still = {"learning_rate": 0.0, "head_learning_rate": 0.0, "save_strategy": "steps", "save_steps": 1}
    result = train(arguments(tiny_encoder, small_data, tmp_path / "run", save_total_limit=2, **still))
    assert result.best_step == 3
    assert [path.name for path in checkpoints_of(tmp_path / "run")] == ["checkpoint-7", "checkpoint-6", "checkpoint-3"]


@pytest.mark.parametrize("step", [None, 4])
def test_early_stopping(tiny_encoder: str, small_data: str, tmp_path: Path, stop_after: Any, step: int | None) -> None:
    more: dict[str, Any] = {"learning_rate": 0.0, "head_learning_rate": 0.0, "early_stopping_patience": 2}
    more |= {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1}
    asked = arguments(tiny_encoder, small_data, tmp_path / "run", **more)
    if step is not None:  # after the end of training, before the end of the run
        train(asked)
        (tmp_path / "run" / "result.json").unlink()
    result = train(asked)
    assert (result.steps, result.best_step) == (3, 1)
    assert max(row["step"] for row in log_of(tmp_path / "run")) == 3


def test_the_last_model_may_be_kept_and_an_evaluation_come_first(
    tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    asked = arguments(tiny_encoder, small_data, tmp_path / "run", load_best_model_at_end=False, eval_on_start=True)
    result = train(asked)
    evaluations = [row for row in log_of(tmp_path / "run") if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [0, 3, 6, 7]
    assert result.best_step == 7 and result.validation is not None
    assert result.validation["kendall_tau"] == evaluations[-1]["eval_kendall_tau"]
    last = load_file(tmp_path / "run" / "checkpoint-7" / "model.safetensors")
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(last[name], kept[name]) for name in last)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 2e-3}, "--learning_rate: was 0.001, is 0.002"),
        ({"seed": 1, "warmup_steps": 2.0}, "--seed: was 42, is 1; --warmup_steps: was 0.1, is 2.0"),
        ({"max_steps": 9}, "steps of the run: was 7, is 9"),
        ({"per_device_train_batch_size": 4}, "documents per step: was 8, is 4"),
        ({"max_train_documents": 20}, "documents of train: was 21 ("),
        ({"mixed_precision": "bf16"}, "mixed precision: was no, is bf16"),
        ({"method": "regression"}, "--method: was pairwise, is regression"),
        ({"output_dir": "elsewhere", "resume_from_checkpoint": "{run}"}, "leave out --output_dir elsewhere"),
        ({"output_dir": None, "resume_from_checkpoint": "{run}/model"}, "is not a checkpoint of sentorder"),
        ({"output_dir": None, "resume_from_checkpoint": "{run}/nowhere"}, "there is no such folder"),
        ({"output_dir": None}, "--resume_from_checkpoint auto: give --output_dir"),
        ({"overwrite_output_dir": True}, "that --overwrite_output_dir would remove"),
    ],
    ids=str,
)
def test_another_training_is_refused(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, changes: dict[str, Any], message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    changes = {k: v.format(run=run) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(UserError) as error:
        train(arguments(tiny_encoder, small_data, run, **changes))
    assert message in str(error.value)


def test_a_finished_run_cannot_be_made_longer(tiny_encoder: str, small_data: str, whole: Path) -> None:
    with pytest.raises(UserError, match="--max_steps: was 7, is 9"):
        train(arguments(tiny_encoder, small_data, whole, max_steps=9))


def test_what_does_not_change_the_numbers_may_change(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, stop_after: Any
) -> None:
    stop_after(4)
    with pytest.raises(Stopped):
        train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    stop_after(None)
    changes = {"dataloader_num_workers": 1, "save_strategy": "steps", "save_steps": 1, "per_device_eval_batch_size": 3}
    train(arguments(tiny_encoder, small_data, tmp_path / "run", **changes, num_train_epochs=99.0))
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "run", whole))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [path.name for path in checkpoints_of(tmp_path / "run")][:2] == ["checkpoint-7", "checkpoint-6"]


def damage(folder: Path, how: str) -> None:
    path = folder / {"weights": "model.safetensors", "state": "training/state.pt"}.get(how, "manifest.json")
    data = path.read_bytes()
    if how == "weights":
        path.write_bytes(data[: len(data) // 2])
    elif how == "state":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif how == "no manifest":
        path.unlink()
    elif how == "manifest":
        path.write_text("{")
    elif how == "format":
        path.write_text(json.dumps({**json.loads(data), "format": 99}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("weights", "model.safetensors: is not as it was saved; the checkpoint is damaged."),
        ("state", "state.pt: is not as it was saved; the checkpoint is damaged."),
        ("no manifest", "is not a checkpoint of sentorder, or only half of one"),
        ("manifest", "manifest.json: cannot be read; the checkpoint is damaged."),
        ("format", "has format 99, this sentorder reads 1; update sentorder."),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_or_refused(
    tiny_encoder: str,
    small_data: str,
    tmp_path: Path,
    stop_after: Any,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
    how: str,
    message: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    newest, before = checkpoints_of(run)[:2]
    damage(newest, how)
    with pytest.raises(UserError) as error:
        train(arguments(tiny_encoder, small_data, run, output_dir=None, resume_from_checkpoint=str(newest)))
    assert message in str(error.value) and newest.name in str(error.value)
    capsys.readouterr()
    train(arguments(tiny_encoder, small_data, run))
    assert f"passed over: {newest}" in capsys.readouterr().err
    assert_same_run(run, whole)
    for path in checkpoints_of(run):
        damage(path, how)
    (run / "result.json").unlink()
    with pytest.raises(UserError, match="no checkpoint there can be used") as error:
        train(arguments(tiny_encoder, small_data, run))
    assert str(error.value).count(message) == len(checkpoints_of(run))
    assert before.exists()


def test_a_state_that_could_run_code_is_refused(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path
) -> None:
    """Even under a manifest that fits."""
    from sentorder.checkpoint import _describe

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    newest = checkpoints_of(run)[0]
    torch.save({"optimizer": Evil(str(tmp_path / "was here"))}, newest / "training" / "state.pt")
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"]["training/state.pt"] = _describe(newest / "training" / "state.pt")
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"state\.pt: does not fit this run"):
        train(arguments(tiny_encoder, small_data, run))
    assert not (tmp_path / "was here").exists()


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_without_checkpoints_the_model_is_not_lost(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """--save_strategy no, and somebody comes back with auto."""
    asked = arguments(tiny_encoder, small_data, tmp_path / "run", save_strategy="no")
    train(asked)
    assert not checkpoints_of(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="holds a model, but no checkpoint to go on from"):
        train(asked)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()

"""Going on with a run must lead to what the uninterrupted run leads to, bit by bit."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentorder import SentenceOrderer, TrainArguments, UserError
from sentorder.checkpoint import checkpoints_of
from sentorder.finite_guard import NonFiniteError
from sentorder.methods import METHODS
from sentorder.resume import _fingerprint, start_of
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
        "method": "pairwise",
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
        {
            "log_with": ["tensorboard"],
            "eval_strategy": "no",
            "pad_to_max_length": True,
            "backbone": "joint",
            "max_length": 256,
        },
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
        (tmp_path / "run" / "result.json").unlink()  # as if killed after the test was logged: it is made again
        train(arguments(tiny_encoder, small_data, tmp_path / "run", **changes))
        for name in ("whole", "run"):
            events = EventAccumulator(str(tmp_path / name / "sentorder"))
            events.Reload()
            assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 7]
            assert [event.step for event in events.Scalars("test_kendall_tau")] == [7]


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
    with pytest.raises(UserError, match="its run is finished.*begin a new run with --model_name_or_path"):
        train(arguments(tiny_encoder, small_data, tmp_path, **named))
    (tmp_path / "run" / "result.json").unlink()
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
    rows = [json.loads(line) for line in Path(small_data.split("test=")[1]).read_text().splitlines()]
    texts = [row["sentences"] for row in rows]
    orders = [[x.order for x in SentenceOrderer.from_pretrained(path).order(texts)] for path in found]
    best = json.loads((tmp_path / "run" / "result.json").read_text())["best_step"]
    kept = [json.loads(line)["order"] for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert orders[[7, 6, 3].index(best)] == kept
    done = run("python", "-m", "sentorder.predict", "--model_path", str(found[1]), stdin="It set.\nThe sun rose.\n")
    assert done.returncode == 0 and sorted(done.stdout.split("\n"))[-2:] == ["It set.", "The sun rose."]


def test_the_newest_and_the_best_are_kept(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """With a learning rate of 0 the first evaluation is the best for ever."""
    still = {"learning_rate": 0.0, "head_learning_rate": 0.0, "save_strategy": "steps", "save_steps": 1}
    result = train(arguments(tiny_encoder, small_data, tmp_path / "run", save_total_limit=2, **still))
    assert result.best_step == 3
    assert [path.name for path in checkpoints_of(tmp_path / "run")] == ["checkpoint-7", "checkpoint-6", "checkpoint-3"]


@pytest.mark.parametrize("keeps_best", [True, False])
@pytest.mark.parametrize("step", [None, 2, 3])
def test_early_stopping(
    tiny_encoder: str, small_data: str, tmp_path: Path, stop_after: Any, step: int | None, keeps_best: bool
) -> None:
    """Also if a signal comes before, and if it comes after the last step and before the end of the run."""
    more: dict[str, Any] = {"learning_rate": 0.0, "head_learning_rate": 0.0, "early_stopping_patience": 2}
    more |= {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1, "load_best_model_at_end": keeps_best}
    asked = arguments(tiny_encoder, small_data, tmp_path / "run", **more)
    if step is not None:
        stop_after(step)
        with pytest.raises(Stopped):
            train(asked)
        stop_after(None)
    result = train(asked)
    assert (result.steps, result.best_step) == (3, 1 if keeps_best else 3)
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
        ({"output_dir": None, "resume_from_checkpoint": "{run}/model"}, "is neither a checkpoint nor the folder of"),
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 9}, "--max_steps: was 7, is 9"),
        ({"dataset": "stories"}, "--dataset: was train="),
        ({"max_train_documents": 5, "seed": 1}, "--max_train_documents: was None, is 5; --seed: was 42, is 1"),
        ({"mixed_precision": "bf16"}, "--mixed_precision: was no, is bf16"),
    ],
    ids=str,
)
def test_a_finished_run_is_not_taken_for_another(
    tiny_encoder: str, small_data: str, whole: Path, changes: dict[str, Any], message: str
) -> None:
    match = "this run is finished, and one with these arguments would not be the same training"
    with pytest.raises(UserError, match=match) as error:
        train(arguments(tiny_encoder, small_data, whole, **changes))
    assert message in str(error.value)


def test_other_texts_of_the_same_length_are_refused(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path
) -> None:
    """The same documents the other way round: each has as many tokens as before."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    source = Path(small_data.split(",")[0].removeprefix("train="))
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({**row, "sentences": row["sentences"][::-1]}) + "\n" for row in rows)
    )
    data = small_data.replace(str(source), str(tmp_path / "train.jsonl"))
    with pytest.raises(UserError, match=r"documents of train: was 21 \(\w+\), is 21 \(\w+\)"):
        train(arguments(tiny_encoder, data, run))


def test_auto_touches_nothing_that_is_not_of_a_run(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    (tmp_path / "sentorder").mkdir()
    (tmp_path / "sentorder" / "precious.py").write_text("mine")
    (tmp_path / "predictions.jsonl").write_text("mine")
    changes: dict[str, Any]
    for changes in ({}, {"resume_from_checkpoint": None, "overwrite_output_dir": True}):
        with pytest.raises(UserError, match="predictions.jsonl, sentorder"):
            train(arguments(tiny_encoder, small_data, tmp_path, **changes))
    assert (
        (tmp_path / "sentorder" / "precious.py").read_text() == (tmp_path / "predictions.jsonl").read_text() == "mine"
    )


def test_links_and_strangers(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is where the checkpoint really lies; a checkpoint that was carried elsewhere has none."""
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    (other / "model").mkdir(parents=True)
    (other / "latest").symlink_to(run / "checkpoint-3")
    shutil.copytree(run / "checkpoint-3", other / "checkpoint-3")
    asked = {"output_dir": None, "resume_from_checkpoint": str(other / "checkpoint-3")}
    with pytest.raises(UserError, match="does not lie in the folder of its run"):
        train(arguments(tiny_encoder, small_data, other, **asked))
    asked["resume_from_checkpoint"] = str(other / "latest")
    assert train(arguments(tiny_encoder, small_data, other, **asked)).output_dir == run
    assert_same_run(run, whole)
    assert sorted(path.name for path in other.iterdir()) == ["checkpoint-3", "latest", "model"]
    (run / "result.json").unlink()
    monkeypatch.chdir(run / "checkpoint-3")
    asked["resume_from_checkpoint"] = "."
    assert train(arguments(tiny_encoder, small_data, other, **asked)).output_dir == run
    assert not (run / "checkpoint-3" / "model").exists()


def test_only_one_run_at_a_time_may_have_a_folder(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentorder.resume.LOCK_SECONDS", 0.1)
    asked = arguments(tiny_encoder, small_data, tmp_path / "run")
    with start_of(Accelerator(cpu=True), asked), pytest.raises(UserError, match="another process is training there"):
        train(asked)
    train(asked)


def test_what_comes_later_is_not_counted_and_not_removed(
    tiny_encoder: str, small_data: str, tmp_path: Path, stop_after: Any
) -> None:
    """Set back to an early checkpoint with damaged later ones, a run must not lose what it saves itself."""
    every = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}
    train(arguments(tiny_encoder, small_data, tmp_path / "run", save_total_limit=9, **every))
    (tmp_path / "run" / "result.json").unlink()
    for step in (4, 5):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    for step in (6, 7):
        damage(tmp_path / "run" / f"checkpoint-{step}", "state")
    for step in (4, 5):
        stop_after(step)
        with pytest.raises(Stopped):
            train(arguments(tiny_encoder, small_data, tmp_path / "run", save_total_limit=1, **every))
        found = [path.name for path in checkpoints_of(tmp_path / "run")]
        assert found == ["checkpoint-7", "checkpoint-6", f"checkpoint-{step}"]


def test_a_lost_best_model_is_said(
    tiny_encoder: str, small_data: str, tmp_path: Path, stop_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"learning_rate": 0.0, "head_learning_rate": 0.0}
    stop_after(5)
    with pytest.raises(Stopped):
        train(arguments(tiny_encoder, small_data, tmp_path / "run", **still))
    stop_after(None)
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    result = train(arguments(tiny_encoder, small_data, tmp_path / "run", **still))
    assert result.best_step == 6
    assert "the best model so far is lost" in capsys.readouterr().err


def test_what_a_kill_leaves_is_put_right(tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    (run / "checkpoint-7").rename(run / "checkpoint-7.old")  # between the two renames of a replacement
    (run / "checkpoint-9.new").mkdir()
    (run / "model").rename(run / "model.old")
    train(arguments(tiny_encoder, small_data, run))
    assert_same_run(run, whole)
    assert not [path.name for path in run.iterdir() if path.suffix in (".new", ".old")]


def test_a_kill_in_the_first_save_leaves_nothing_in_the_way(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first best model and the first checkpoint are due together; without the second, `auto` begins anew."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sentorder.run.save_checkpoint", killed)
        train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    assert_same_run(tmp_path / "run", whole)


def test_skips_in_a_row_are_counted_across_a_stop(
    tiny_encoder: str, small_data: str, tmp_path: Path, stop_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, calls = METHODS["pairwise"], 0

    def loss(output: Any, batch: Any) -> torch.Tensor:
        nonlocal calls
        training = output.pair_logits.requires_grad
        calls += training
        return row.loss(output, batch) * (torch.nan if training and calls in (3, 4, 5) else 1)

    monkeypatch.setitem(METHODS, "pairwise", dataclasses.replace(row, loss=loss))
    asked = arguments(tiny_encoder, small_data, tmp_path / "run", max_skipped_steps=2, logging_steps=4)
    stop_after(4)
    with pytest.raises(Stopped):
        train(asked)
    assert [row.get("skipped_steps") for row in log_of(tmp_path / "run") if "loss" in row] == [2.0]
    stop_after(None)
    with pytest.raises(NonFiniteError, match="Step 5: .* That is step 3 of this kind in a row"):
        train(asked)


@pytest.mark.parametrize("progress", ["{}", "[]", '{"arguments": {}, "cursor": {"other": 1}}', '{"facts": null}'])
def test_progress_of_another_version_is_refused(
    tiny_encoder: str, small_data: str, tmp_path: Path, whole: Path, progress: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    replace_in_checkpoint(checkpoints_of(run)[0], "training/progress.json", progress.encode())
    with pytest.raises(UserError, match="what this sentorder does not understand"):
        train(arguments(tiny_encoder, small_data, run))


def replace_in_checkpoint(checkpoint: Path, name: str, data: bytes) -> None:
    """Put another file there, under a manifest that fits."""
    (checkpoint / name).write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


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
        ("format", "has format 99, this sentorder reads 1; use the one that wrote it."),
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
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    evil = io.BytesIO()
    torch.save({"optimizer": Evil(str(tmp_path / "was here"))}, evil)
    replace_in_checkpoint(checkpoints_of(run)[0], "training/state.pt", evil.getvalue())
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


def test_the_documents_are_the_same_however_their_table_is_cut() -> None:
    texts = [[[1, 2], [3]], [[4], [5, 6], [7]], [[8]]]
    whole = pa.table({"sentence_ids": texts})
    pieces = pa.concat_tables([whole.slice(start, 1) for start in range(3)])
    other = pa.table({"sentence_ids": [[[1], [2, 3]], *texts[1:]]})
    first, second, third = (_fingerprint(Dataset(table)) for table in (whole, pieces, other))
    assert first == second != third

"""Trackers, each with the real package: what they kept is what ``metrics.jsonl`` has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Run, read_metrics


def test_four_trackers_keep_what_the_log_has(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = run(
        *("python", "-m", "sentorder.train", "--model_name_or_path", tiny_encoder, "--dataset", small_data),
        *("--max_steps", "4", "--logging_steps", "1", "--output_dir", "run"),
        *("--log_with", "tensorboard", "mlflow", "wandb", "swanlab"),
        MLFLOW_TRACKING_URI=store,
        WANDB_MODE="offline",
        SWANLAB_MODE="local",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    rows = read_metrics(folder)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    (test_tau,) = [row["test_kendall_tau"] for row in rows if "test_kendall_tau" in row]
    assert [step for step, _ in losses] == [1, 2, 3, 4]

    events = EventAccumulator(str(folder / "sentorder"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (step, pytest.approx(loss, abs=1e-6)) for step, loss in losses
    ]

    client = mlflow.MlflowClient(store)
    (kept,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    history = client.get_metric_history(kept.info.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == losses
    assert kept.data.metrics["test_kendall_tau"] == test_tau and kept.data.params["max_steps"] == "4"

    # The file of W&B has no reader of its own; its numbers stand in it as JSON.
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    raw = file.read_bytes()
    assert all(json.dumps(loss).encode() in raw for _, loss in losses) and b"test_kendall_tau" in raw

    series = [
        [(entry["index"], entry["data"]) for entry in map(json.loads, file.read_text().splitlines())]
        for file in folder.glob("swanlog/run-*/logs/*/*.log")
    ]
    assert losses in series and [(rows[-1]["step"], test_tau)] in series
    assert not list(tmp_path.glob("wandb")) and not list(tmp_path.glob("swanlog"))  # nothing beside the run's folder


def test_a_tracker_that_is_not_there_is_an_error(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    done = run(
        *("python", "-m", "sentorder.train", "--model_name_or_path", tiny_encoder, "--dataset", small_data),
        *("--output_dir", "run", "--log_with", "clearml"),
    )
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert re.search("--log_with clearml: that tracker is not installed; pip install clearml", done.stderr)

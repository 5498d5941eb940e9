import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sentorder.methods import UNTRAINED
from tests.conftest import REPOSITORY, Run, read_metrics

SCRIPT = str(REPOSITORY / "examples" / "benchmarks" / "compare_methods.py")


@pytest.mark.slow
def test_compare_methods_goes_on_where_it_stopped(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    command = [
        *("python", SCRIPT, "--output_dir", "compare"),
        *("--model_name_or_path", tiny_encoder, "--dataset", small_data, "--max_steps", "2", "--screen_steps", "1"),
    ]
    names = ["regression-mean", "joint"]
    first = run(*command, "--only", *names, "--finalists", "1", "--seeds", "1", "2")
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "compare"
    screen, final = (json.loads((folder / f"{table}.json").read_text()) for table in ("screen", "test"))
    assert {row["name"] for row in screen["rows"]} == {*names, *UNTRAINED}
    taus = {row["name"]: row["kendall_tau"] for row in screen["rows"]}
    finalists = list(dict.fromkeys([max(names, key=lambda name: taus[name]), "regression-mean"]))
    assert {row["name"] for row in final["rows"]} == {*finalists, *UNTRAINED}
    for row in final["rows"]:
        assert row["documents"] == 7 and row["low"] <= row["kendall_tau"] <= row["high"]
        if row["name"] in finalists:
            runs = [json.loads((folder / f"{row['name']}-{seed}/test_results.json").read_text()) for seed in (1, 2)]
            assert row["kendall_tau"] == pytest.approx(sum(scores["kendall_tau"] for scores in runs) / 2)
            assert row["seeds"] == 2 and row["memory"] > 0.1 and row["ordering_speed"] > 0
            assert (
                f"| {row['name']} | 2 | {row['kendall_tau']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
                in first.stdout
            )
    assert not (folder / "screen" / "joint" / "test_results.json").exists()  # test was not looked at
    assert (folder / "test.png").stat().st_size > 10_000 and (folder / "screen.md").read_text().startswith("| method")
    best = finalists[0]
    kept = (folder / f"{best}-1/metrics.jsonl").stat().st_mtime_ns
    (folder / f"{best}-2/run.json").unlink()
    other = run(*command, "--only", best, "--seeds", "1", "--learning_rate", "1e-3")
    assert other.returncode == 2 and f"compare/{best}-1: holds a run with other arguments" in other.stderr
    own = run(*command, "--only", best, "--pooling", "mean")
    assert own.returncode == 2 and "--pooling: is what the contestants differ in" in own.stderr
    again = run(*command, "--only", best, "--seeds", "1", "2")
    assert again.returncode == 0, again.stderr
    assert (folder / f"{best}-1/metrics.jsonl").stat().st_mtime_ns == kept
    (row,) = [row for row in json.loads((folder / "test.json").read_text())["rows"] if row["name"] == best]
    (before,) = [row for row in final["rows"] if row["name"] == best]
    assert row["by_seed"] == before["by_seed"]


@pytest.mark.slow
def test_the_default_run_learns_to_order(run: Run, tmp_path: Path) -> None:
    """A third of the default run, from the real encoder: far above chance, which is 0 with a standard error of 0.02."""
    result = run("accelerate", "launch", "-m", "sentorder.train", "--max_steps", "200", "--max_eval_documents", "200")
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "runs" / "1" / "test_results.json").read_text())
    assert scores["kendall_tau"] > 0.35 and scores["accuracy"] > 0.25
    losses = [row["loss"] for row in read_metrics(tmp_path / "runs" / "1") if "loss" in row]
    assert losses[0] == pytest.approx(0.693, abs=0.02) and losses[-1] < 0.58
    given = "It set behind the hills.\nThe sun rose.\nAt noon it stood above the roof.\n"
    ordered = run("python", "-m", "sentorder.predict", "--model_path", "runs/1/model", stdin=given)
    assert sorted(ordered.stdout.strip().splitlines()) == sorted(given.strip().splitlines())


EXAMPLES = REPOSITORY / "examples"
GLOO = REPOSITORY / "accelerate_configs" / "cpu_gloo.yaml"


def test_sentence_ordering_by_hand_is_the_run_of_the_command(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    """The parts composed by hand end with the weights of `python -m sentorder.train`, and score as it does."""
    model, data = ["--model_name_or_path", tiny_encoder], ["--dataset", small_data]
    hand = run("python", str(EXAMPLES / "sentence_ordering.py"), *model, *data, "--output_dir", "hand")
    assert hand.returncode == 0, hand.stderr
    command = run(
        "python", "-m", "sentorder.train", *model, *data, "--output_dir", "run", "--no_load_best_model_at_end"
    )
    assert command.returncode == 0, command.stderr
    a, b = (load_file(tmp_path / folder / "model.safetensors") for folder in ("hand", "run/model"))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=0, atol=1e-6), name
    line = next(line for line in hand.stdout.splitlines() if line.startswith("test:"))
    assert line in command.stdout.splitlines()


@pytest.mark.parametrize("processes", [1, 2])
def test_mrpc(run: Run, tiny_encoder: str, tmp_path: Path, processes: int) -> None:
    for split, size in (("train", 40), ("validation", 13)):  # 13 do not divide evenly
        rows = [
            {"sentence1": "the old dog slept " * (1 + i % 5), "sentence2": "a dog slept", "label": i % 2, "idx": i}
            for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Started from nothing: Arrow's threads for reading JSON lines do not survive a fork.
    start = [sys.executable] if processes == 1 else ["accelerate", "launch", "--config_file", str(GLOO)]
    port = [] if processes == 1 else ["--main_process_port", "29541"]
    result = run(
        *start,
        *port,
        str(EXAMPLES / "mrpc_classification.py"),
        *("--data_dir", str(tmp_path), "--metric", str(EXAMPLES / "accuracy_and_f1.py")),
        *("--model_name_or_path", tiny_encoder, "--per_device_batch_size", "4", "--num_train_epochs", "2"),
        ACCELERATE_USE_CPU="true",
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    for number, line in enumerate(lines):
        found = re.fullmatch(r"epoch (\d): accuracy (\S+), f1 (\S+) over 13 pairs", line)
        assert found and int(found[1]) == number
        assert (float(found[2]) * 13) == pytest.approx(round(float(found[2]) * 13), abs=1e-3)
        assert 0 <= float(found[3]) <= 1


def test_the_local_metric() -> None:
    # The examples load it by evaluate.load, which fails for a second local metric within the same second.
    metric = runpy.run_path(str(EXAMPLES / "accuracy_and_f1.py"))["AccuracyAndF1"](keep_in_memory=True)
    assert metric.compute(predictions=[1, 1, 0, 0, 1], references=[1, 0, 1, 0, 1]) == {
        "accuracy": pytest.approx(0.6),
        "f1": pytest.approx(2 / 3),
    }
    assert metric.compute(predictions=[0, 0], references=[1, 0]) == {"accuracy": 0.5, "f1": 0.0}


def test_a_model_and_a_loss_of_ones_own(run: Run) -> None:
    result = run("python", str(EXAMPLES / "custom_model_and_loss.py"))
    assert result.returncode == 0, result.stderr
    found = re.fullmatch(r"F1 (\S+), accuracy (\S+) over (\d+) sentences\n", result.stdout)
    assert found and int(found[3]) > 2000
    assert float(found[1]) > 0.4  # to call everything an opening gives 0.29


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_cost_nothing(run: Run, kills: int) -> None:
    script = str(EXAMPLES / "benchmarks" / "kill_and_resume.py")
    result = run(sys.executable, script, "--kills", str(kills), "--max_steps", "40")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("is safe") == kills
    assert "every run ended bit-equal to the untouched one" in result.stdout


@pytest.mark.slow
def test_the_benchmark_of_many_documents(run: Run) -> None:
    result = run(sys.executable, str(EXAMPLES / "benchmarks" / "data_scale.py"), "40", "60")
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| 40"] * 6 + ["| 60"] * 6
    assert all(float(row[5].replace(",", "")) > 50 for row in rows)


@pytest.mark.slow
def test_the_benchmark_of_long_documents(run: Run) -> None:
    script = str(EXAMPLES / "benchmarks" / "length_scale.py")
    for more in ((), ("--method", "regression", "--backbone", "joint", "--piece_length", "8")):
        result = run(sys.executable, script, "6", "40", *more)
        assert result.returncode == 0, result.stderr
        rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()[2:]]
        assert [row[0] for row in rows] == ["6", "40"]
        assert all(float(row[2]) >= float(row[3]) >= 0 and float(row[4]) >= float(row[5]) > 50 for row in rows)

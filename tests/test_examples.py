import json
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Run, read_metrics

SCRIPT = str(REPOSITORY / "examples" / "benchmarks" / "compare_methods.py")


def test_compare_methods_goes_on_where_it_stopped(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    command = [
        *("python", SCRIPT, "--output_dir", "compare", "--only", "regression-mean", "pointer"),
        *("--model_name_or_path", tiny_encoder, "--dataset", small_data, "--max_steps", "2"),
    ]
    first = run(*command, "--seeds", "1", "2")
    assert first.returncode == 0, first.stderr
    table = json.loads((tmp_path / "compare" / "table.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["regression-mean", "pointer"]
    for row in table["rows"]:
        folders = [tmp_path / "compare" / f"{row['name']}-{seed}" for seed in (1, 2)]
        tests = [json.loads((folder / "test_results.json").read_text()) for folder in folders]
        valid = [max(x["eval_kendall_tau"] for x in read_metrics(folder) if "eval_loss" in x) for folder in folders]
        assert row["kendall_tau"] == pytest.approx(sum(scores["kendall_tau"] for scores in tests) / 2)
        assert row["validation"] == pytest.approx(sum(valid) / 2)
        assert row["validation_error"] == pytest.approx(abs(valid[0] - valid[1]) / 2)
        assert row["seeds"] == 2 and row["documents"] == 7 and row["test_error"] > 0
        assert f"| {row['name']} | 2 | {row['validation']:.3f} ± {row['validation_error']:.3f} |" in first.stdout
    kept = (tmp_path / "compare/pointer-1/metrics.jsonl").stat().st_mtime_ns
    (tmp_path / "compare/pointer-2/scores.json").unlink()
    other = run(*command, "--seeds", "1", "--learning_rate", "1e-3")
    assert other.returncode == 2 and "compare/regression-mean-1: holds a run with other arguments" in other.stderr
    again = run(*command, "--seeds", "2", "--only", "pointer")
    assert again.returncode == 0 and again.stdout.endswith(first.stdout[first.stdout.rindex("| method") :])
    assert (tmp_path / "compare/pointer-1/metrics.jsonl").stat().st_mtime_ns == kept


def test_compare_methods_can_leave_test_alone(run: Run, tiny_encoder: str, small_data: str) -> None:
    data = small_data.rpartition(",test=")[0]
    result = run(
        *("python", SCRIPT, "--output_dir", "compare", "--only", "pairwise"),
        *("--model_name_or_path", tiny_encoder, "--dataset", data, "--max_steps", "2"),
    )
    assert result.returncode == 0, result.stderr
    table = result.stdout[result.stdout.rindex("| method") :]
    assert table.startswith("| method | seeds | validation tau |\n|---|---|---|\n| pairwise | 1 | ")


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

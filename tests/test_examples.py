import json
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Run, read_metrics


def test_compare_methods_goes_on_where_it_stopped(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    command = [
        *("python", str(REPOSITORY / "examples" / "benchmarks" / "compare_methods.py"), "--output_dir", "compare"),
        *("--seeds", "1", "2", "--model_name_or_path", tiny_encoder, "--dataset", small_data, "--max_steps", "2"),
    ]
    first = run(*command)
    assert first.returncode == 0, first.stderr
    table = json.loads((tmp_path / "compare" / "table.json").read_text())
    assert [row["method"].split(",")[0] for row in table["rows"]] == ["regression", "regression", "pairwise"]
    for place, row in enumerate(table["rows"], start=1):
        runs = [json.loads((tmp_path / f"compare/{place}-{seed}/test_results.json").read_text()) for seed in (1, 2)]
        assert row["kendall_tau"] == pytest.approx(sum(scores["kendall_tau"] for scores in runs) / 2)
        assert row["seeds"] == 2 and row["documents"] == 7 and row["standard_error"] > 0
        assert f"| {row['method']} | {row['kendall_tau']:.3f} ±" in first.stdout
    kept = (tmp_path / "compare/1-1/metrics.jsonl").stat().st_mtime_ns
    (tmp_path / "compare/3-2/test_results.json").unlink()
    other = run(*command, "--learning_rate", "1e-3")
    assert other.returncode == 2 and "compare/1-1: holds a run with other arguments" in other.stderr
    again = run(*command)
    assert again.returncode == 0 and (tmp_path / "compare/3-2/test_results.json").exists()
    assert (tmp_path / "compare/1-1/metrics.jsonl").stat().st_mtime_ns == kept
    assert (tmp_path / "compare" / "table.md").read_text() in again.stdout


@pytest.mark.slow
def test_the_default_run_learns_to_order(run: Run, tmp_path: Path) -> None:
    """A third of the default run, from the real encoder: far above chance, which is 0 with a standard error of 0.02."""
    result = run("accelerate", "launch", "-m", "sentorder.train", "--max_steps", "100", "--max_eval_documents", "200")
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "runs" / "1" / "test_results.json").read_text())
    assert scores["kendall_tau"] > 0.35 and scores["accuracy"] > 0.25
    losses = [row["loss"] for row in read_metrics(tmp_path / "runs" / "1") if "loss" in row]
    assert losses[0] == pytest.approx(0.693, abs=0.02) and losses[-1] < 0.58
    given = "It set behind the hills.\nThe sun rose.\nAt noon it stood above the roof.\n"
    ordered = run("python", "-m", "sentorder.predict", "--model_path", "runs/1/model", stdin=given)
    assert sorted(ordered.stdout.strip().splitlines()) == sorted(given.strip().splitlines())

import json
import statistics
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Run

BENCHMARKS = REPOSITORY / "examples" / "benchmarks"
OPTIONAL = {"pytorch-accelerated": "pytorch_accelerated", "fabric": "lightning_fabric"}


@pytest.mark.slow
def test_training_takes_turns(run: Run, tiny_encoder: str, tmp_path: Path) -> None:
    of_contest = ["--documents", "16", "--rounds", "2", "--batch_size", "4", "--threads", "1", "--output", "out/speed"]
    script = str(BENCHMARKS / "training_speed.py")
    result = run("python", script, "--model_name_or_path", tiny_encoder, *of_contest)
    assert result.returncode == 0, result.stderr
    values = json.loads((tmp_path / "out/speed.json").read_text())
    missing = {name for name, module in OPTIONAL.items() if find_spec(module) is None}
    names = ["tutorial", "trainer", "pytorch-accelerated", "fabric", "bare", "sentorder", "sentorder, default"]
    names = [name for name in names if name not in missing]
    assert list(values["results"]) == names and list(values["turns"]) == [*names, "matrix product"]
    assert all(f"{name}: left out" in result.stderr for name in missing)

    table = (tmp_path / "out/speed.md").read_text()
    assert table in result.stdout
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert [row[0] for row in cells[2:]] == names
    for name, row in zip(names, cells[2:], strict=True):
        turns, found = values["turns"][name], values["results"][name]
        # An epoch of the 16 documents, whatever the batch size; of the tutorial two steps of four.
        assert [turn["documents"] for turn in turns] == [8 if name == "tutorial" else 16] * 2
        speeds = [turn["documents"] / turn["seconds"] for turn in turns]
        assert found["documents_per_second"] == pytest.approx(speeds)
        assert row[1].split()[0] == f"{statistics.median(speeds):.3g}"
        for column, ours in ((3, "sentorder"), (4, "sentorder, default")):
            pairs = zip(values["results"][ours]["documents_per_second"], speeds, strict=True)
            ratios = [speed / other for speed, other in pairs]
            assert found["times_as_fast"][ours] == pytest.approx(ratios)
            assert row[column].split()[0] == f"{statistics.median(ratios):.2f}"
        # The same tokens in every epoch, with a marker before each sentence.
        if name != "tutorial":
            assert {turn["real_tokens"] for turn in turns} == {values["turns"]["bare"][0]["real_tokens"]}

    padding = {name: found["padding"] for name, found in values["results"].items()}
    tokens = [turn["tokens"] for turn in values["turns"]["tutorial"]]
    assert tokens == [8 * 512] * 2 and padding["tutorial"] > 0.3
    assert 0 <= padding["sentorder"] == padding["bare"] <= padding["trainer"] + 0.01 < padding["tutorial"] / 2
    assert padding["sentorder, default"] < 0.2
    assert "GFLOP/s of plain matrix products" in table


def test_benchmarks_refuse_what_cannot_be_measured(run: Run, tiny_encoder: str) -> None:
    script = str(BENCHMARKS / "training_speed.py")
    for wrong, told in (
        (["--rounds", "0"], "must be at least 1"),
        (["--only", "matrix product"], "There is nobody to be measured"),
        (["--model_name_or_path", tiny_encoder, "--documents", "1000000"], "--documents 1000000: there are only"),
        (["--model_name_or_path", tiny_encoder, "--tokens", "2"], "--tokens 2.0: no five sentences"),
    ):
        result = run("python", script, *wrong)
        assert result.returncode == 2 and told in result.stderr, result.stderr

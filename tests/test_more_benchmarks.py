"""The benchmarks of speed and memory, on little."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Run

BENCHMARKS = REPOSITORY / "examples" / "benchmarks"


def measured(run: Run, folder: Path, name: str, *options: str) -> dict[str, Any]:
    """The figures of a benchmark; its table is printed and written down alike."""
    result = run("python", str(BENCHMARKS / f"{name}.py"), *options, "--output", "figures/found")
    assert result.returncode == 0, result.stderr
    assert result.stdout == (folder / "figures" / "found.md").read_text()
    values: dict[str, Any] = json.loads((folder / "figures" / "found.json").read_text())
    assert values["machine"]["threads"] >= 1 and "torch" in values["versions"]
    values["printed"] = result.stdout
    return values


@pytest.mark.slow
def test_what_a_loop_costs(run: Run, tmp_path: Path) -> None:
    values = measured(run, tmp_path, "loop_overhead", "--steps", "12", "--rounds", "3")
    rows = values["rows"]
    assert [row["loop"].split(",")[0] for row in rows] == [
        *("bare PyTorch", "Accelerate", "transformers Trainer", "sentorder", "sentorder")
    ]
    for row in rows:
        played = values["turns"][row["loop"]]
        assert row["milliseconds"] == pytest.approx([1000 * turn["seconds"] / 12 for turn in played])
        over = [own - bare for own, bare in zip(row["milliseconds"], rows[0]["milliseconds"], strict=True)]
        assert row["over_bare"] == pytest.approx(median(over)) and row["median"] == median(row["milliseconds"])
        assert f"| {row['loop']} | {row['median']:.3f} (" in values["printed"]
    assert rows[0]["over_bare"] == 0 and all(row["median"] < 1000 for row in rows)


@pytest.mark.parametrize("backbone", ["hierarchical", "joint"])
def test_where_a_step_goes(run: Run, tiny_encoder: str, tmp_path: Path, backbone: str) -> None:
    options = ("--backbone", backbone, "--batch_size", "6", "--steps", "4", "--profiled", "2")
    values = measured(run, tmp_path, "step_profile", "--model_name_or_path", tiny_encoder, *options)
    parts = {row["part"]: row for row in values["parts"]}
    assert sum(row["share"] for row in parts.values()) == pytest.approx(1)
    assert sum(row["milliseconds"] for row in parts.values()) == pytest.approx(values["step_milliseconds"])
    assert all(row["milliseconds"] > 0 for row in parts.values())  # none was wrapped in vain
    assert parts["forward"]["share"] > parts["collating"]["share"]
    assert parts["forward"]["share"] + parts["backward"]["share"] > 0.3
    batches = values["batches"]
    assert batches["documents"] == 24 and 4 * 24 <= batches["sentences"] <= 12 * 24
    assert batches["tokens"] < batches["tokens_computed"]
    assert batches["padding_share"] == pytest.approx(1 - batches["tokens"] / batches["tokens_computed"])
    assert batches["padding_share"] < 0.5
    spent = [row["milliseconds"] for row in values["operators"]]
    assert len(spent) == 10 and spent == sorted(spent, reverse=True) and spent[-1] > 0
    assert 0.3 < sum(row["share"] for row in values["operators"]) <= 1
    assert "| collating |" in values["printed"] and "under 2%)" in values["printed"]


@pytest.mark.slow
def test_how_fast_documents_are_ordered(run: Run, tiny_encoder: str, tmp_path: Path) -> None:
    options = ("--sentences", "3", "5", "--documents", "4", "2", "--rounds", "2", "--repeats", "2")
    values = measured(run, tmp_path, "inference_speed", "--model_name_or_path", tiny_encoder, *options)
    systems = ["pair cross-encoder", "sentorder", "sentorder, pairwise"]
    assert [(row["sentences"], row["system"]) for row in values["rows"]] == [
        (n, name) for n in (3, 5) for name in systems
    ]
    for row in values["rows"]:
        played = values["turns"][str(row["sentences"])]
        times = 1 if row["system"] == systems[0] else 2
        number = {3: 4, 5: 2}[row["sentences"]]
        assert [turn["documents"] for turn in played[row["system"]]] == [times * number] * 2
        speeds = [turn["documents"] / turn["seconds"] for turn in played[row["system"]]]
        assert row["documents_per_second"] == pytest.approx(speeds)
        against = [turn["documents"] / turn["seconds"] for turn in played[systems[0]]]
        assert row["ratio"] == pytest.approx(median(own / other for own, other in zip(speeds, against, strict=True)))
    assert values["rows"][0]["ratio"] == 1


@pytest.mark.slow
def test_how_memory_grows(run: Run, tmp_path: Path) -> None:
    values = measured(run, tmp_path, "memory_growth", "--steps", "12", "--every", "4", "--documents", "30", "60")
    assert [row["steps"] for row in values["training"]] == [4, 8, 12]
    assert all(50 < row["anonymous_mb"] < 5000 for row in values["training"])
    grown = values["training"][-1]["anonymous_mb"] - values["training"][0]["anonymous_mb"]
    assert values["growth"]["training_mb"] == pytest.approx(grown)
    assert [row["documents"] for row in values["evaluation"]] == [30, 60]
    assert all(50 < row["before_mb"] <= row["peak_mb"] < 5000 for row in values["evaluation"])
    assert f"From step 4 to 12: {grown:+.1f} MB." in values["printed"]


@pytest.mark.slow
def test_how_long_a_start_takes(run: Run, tiny_encoder: str, tmp_path: Path) -> None:
    values = measured(run, tmp_path, "startup", "--repetitions", "1", "--model_name_or_path", tiny_encoder)
    seconds = {row["command"]: row["median"] for row in values["rows"]}
    assert len(seconds) == 6 and all(len(row["seconds"]) == 1 for row in values["rows"])
    assert 0 < seconds["python, nothing more"] < seconds["python, import torch"]
    assert seconds["python -m sentorder.predict --help"] < seconds["python -m sentorder.train: first step done"]
    assert not list(Path(tmp_path).glob("runs"))


def test_how_fast_documents_are_tokenised(run: Run, tiny_encoder: str, tmp_path: Path) -> None:
    options = ("--sentences", "400", "--rounds", "3")
    values = measured(run, tmp_path, "tokenizing_speed", "--model_name_or_path", tiny_encoder, *options)
    assert 400 <= values["sentences"] < 412 and 33 <= values["documents"] <= 100
    assert values["tokenizing"][0]["ratio"] == 1
    alone = values["tokenizing"][0]["sentences_per_second"]
    for row in values["tokenizing"]:
        ratios = [own / other for own, other in zip(row["sentences_per_second"], alone, strict=True)]
        assert row["ratio"] == pytest.approx(median(ratios)) and len(ratios) == 3
        assert f"| {row['system']} | {row['median']:,.0f} (" in values["printed"]
    assert [row["backbone"] for row in values["collating"]] == ["joint", "hierarchical"]
    assert all(0 < row["median"] < 100 for row in values["collating"])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("loop_overhead", ("--rounds", "0"), "--steps and --rounds must be at least 1."),
        ("step_profile", ("--steps", "0"), "--steps must be at least 1"),
        ("inference_speed", ("--sentences", "5"), "--documents: give one number for each of --sentences."),
        ("memory_growth", ("--steps", "5", "--every", "10"), "--steps no less than --every"),
        ("startup", ("--repetitions", "0"), "--repetitions must be at least 1."),
        ("tokenizing_speed", ("--sentences", "1000000"), "there are only 16532 bundled ones"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, name: str, options: tuple[str, ...], said: str) -> None:
    result = run("python", str(BENCHMARKS / f"{name}.py"), *options)
    assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr

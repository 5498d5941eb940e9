"""``python -m sentorder.compare``: what it computes, what it says, and what it refuses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentorder.compare import System, parse_system, read_systems, score
from sentorder.evaluation import scores_of
from sentorder.metrics import kendall_tau, positions_of
from sentorder.significance import paired_difference
from tests.conftest import Run

Row = dict[str, Any]

GOOD: list[Row] = [
    {"id": "a", "order": [0, 2, 1, 3, 4], "confidence": 0.5, "genre": "story"},
    {"id": "b", "order": [0, 1], "genre": "story"},
    {"id": "c", "order": [0]},
    {"id": "d", "order": [1, 2, 0], "genre": None},
]
BETTER: list[Row] = [  # in another order of lines, and without genres
    {"id": "d", "order": [0, 2, 1]},
    {"id": "c", "order": [0]},
    {"id": "a", "order": [0, 1, 2, 3, 4]},
    {"id": "b", "order": [0, 1]},
]


def write(path: Path, rows: list[Row]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def random_rows(seed: int, noise: float, documents: int = 60) -> list[Row]:
    """The first half of 5 sentences, the second of 8; the more noise, the worse."""
    random = np.random.default_rng(seed)
    lengths = [5 if number < documents // 2 else 8 for number in range(documents)]
    return [
        {"id": str(number), "order": np.argsort(np.arange(n) + noise * random.normal(size=n)).tolist()}
        for number, n in enumerate(lengths)
    ]


# --- what is computed -----------------------------------------------------------------------------------------------


def test_scores_by_length_and_genre(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", GOOD)
    result = run("python", "-m", "sentorder.compare", "good.jsonl", "--json", "out.json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (system,) = (written := json.loads((tmp_path / "out.json").read_text()))["systems"]
    assert written["differences"] == [] and system["name"] == "good.jsonl" and system["files"] == ["good.jsonl"]
    scores = system["scores"]
    assert scores == scores_of([row["order"] for row in GOOD])
    assert scores["kendall_tau"] == pytest.approx((0.8 + 1 - 1 / 3) / 3)
    assert scores["documents"] == 3 and scores["single_sentence_documents"] == 1
    by_length = {length: means["kendall_tau"] for length, means in system["by_sentences"].items()}
    assert by_length == {"2": 1.0, "3": pytest.approx(-1 / 3), "5": pytest.approx(0.8)}
    by_genre = {genre: (means["documents"], means["accuracy"]) for genre, means in system["by_genre"].items()}
    assert by_genre == {"(none)": (1, 0.0), "story": (2, pytest.approx(0.8))}

    words = [line.split() for line in result.stdout.splitlines()]
    assert words[0] == ["good.jsonl"]
    assert result.stdout.splitlines()[1] == "3 documents (1 of one sentence left out)"
    ends = f"{scores['kendall_tau_low']:.4f} to {scores['kendall_tau_high']:.4f}"
    assert ["kendall_tau", "0.4889", *f"(95 %: {ends})".split()] in words
    assert ["spearman", f"{scores['spearman']:.4f}"] in words  # only the main figures have an interval
    assert ["5", "1", "0.8000", "0.6000", "0.0000"] in words and ["story", "2", "0.9000", "0.8000", "0.5000"] in words


def test_differences_are_paired_by_id(run: Run, tmp_path: Path) -> None:
    """The rows of the second file stand in another order."""
    write(tmp_path / "run" / "predictions.jsonl", GOOD)
    write(tmp_path / "better.jsonl", BETTER)
    result = run("python", "-m", "sentorder.compare", "run", "new=better.jsonl", "run/../run", "--json", "out.json")
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    better, same = written["differences"]
    assert (better["system"], better["less"], same["system"]) == ("new", "run", "run/../run")
    expected = paired_difference(np.array([0.8, 1.0, -1 / 3]), np.array([1.0, 1.0, 1 / 3]))._asdict()
    assert better["kendall_tau"] == {name: pytest.approx(value) for name, value in expected.items()}
    assert better["accuracy"]["difference"] == pytest.approx((0.4 + 0 + 1 / 3) / 3)
    assert same["kendall_tau"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}
    assert "new less run, on the same 3 documents" in result.stdout
    assert f"+{expected['difference']:.4f}" in result.stdout and f"p {expected['p_value']:.4f}" in result.stdout
    assert "by_genre" not in written["systems"][1]


def test_runs_of_one_system_are_averaged_per_document(tmp_path: Path) -> None:
    runs = [random_rows(seed, noise=2.0) for seed in (1, 2, 3)]
    files = [write(tmp_path / f"{number}.jsonl", rows) for number, rows in enumerate(runs)]
    pooled = parse_system(f"ours={','.join(files)}")
    assert pooled == System("ours", files)
    (read,) = read_systems([pooled])
    found = score(pooled, read)
    taus = [[kendall_tau(positions_of(row["order"]), range(len(row["order"]))) for row in rows] for rows in runs]
    assert np.allclose(found.figures["kendall_tau"], np.mean(taus, axis=0))
    of_runs = [scores_of([row["order"] for row in rows]) for rows in runs]
    for name in ("kendall_tau", "accuracy_micro", "kendall_tau_micro", "within_1", "last_sentence"):
        assert found.scores[name] == pytest.approx(np.mean([scores[name] for scores in of_runs]))
    assert found.scores["documents"] == 60
    # The mean of three runs is surer than one of them: some of what a document scores is chance.
    widths = [scores["kendall_tau_high"] - scores["kendall_tau_low"] for scores in [found.scores, *of_runs]]
    assert widths[0] < min(widths[1:])


def test_a_better_system_is_found_and_one_that_is_alike_is_not(run: Run, tmp_path: Path) -> None:
    for name, seed, noise in (("a", 4, 2.0), ("b", 5, 2.0), ("c", 3, 1.0)):
        write(tmp_path / f"{name}.jsonl", random_rows(seed, noise))
    result = run("python", "-m", "sentorder.compare", "a.jsonl", "b.jsonl", "c.jsonl", "--json", "out.json")
    assert result.returncode == 0, result.stderr
    alike, better = (item["kendall_tau"] for item in json.loads((tmp_path / "out.json").read_text())["differences"])
    assert alike["low"] < 0 < alike["high"] and alike["p_value"] > 0.05
    assert better["low"] > 0.1 and better["p_value"] < 0.001


def test_many_lengths_are_put_together(tmp_path: Path) -> None:
    rows = [{"id": str(n), "order": list(range(n))} for n in range(1, 18)]
    system = parse_system(write(tmp_path / "many.jsonl", rows))
    ((read,),) = read_systems([system])
    counts = {label: means["documents"] for label, means in score(system, [read]).by("sentences").items()}
    assert counts == {"2-3": 2, "4-7": 4, "8-15": 8, "16-31": 2}
    (fewer,) = ([row for row in read if len(row.order) < 14],)
    assert list(score(system, [fewer]).by("sentences")) == [str(n) for n in range(2, 14)]


def test_a_file_whose_name_has_an_equals_sign(tmp_path: Path) -> None:
    odd = write(tmp_path / "lr=1,seed=2.jsonl", GOOD)
    assert parse_system(odd) == System(odd, [odd])
    assert parse_system(f"A={odd.replace(',', '_')}").name == "A"


def test_one_document_is_scored_without_an_interval(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", GOOD[:1])
    result = run("python", "-m", "sentorder.compare", "one.jsonl")
    assert result.returncode == 0, result.stderr
    assert "kendall_tau                 0.8000\n" in result.stdout and "95 %" not in result.stdout


@pytest.mark.parametrize(
    ("repository", "line"),
    [("btsort", "Sentence Accuracy 50.000000"), ("berson", "acc_dev 0.650000"), ("rebart", "Accuracy 0.545455")],
)
def test_as_another_repository(run: Run, tmp_path: Path, repository: str, line: str) -> None:
    """5 of the 10 sentences of documents with more than one, 6 of all 11, and means of 0.6, 1, 1 and 0."""
    write(tmp_path / "good.jsonl", GOOD)
    result = run("python", "-m", "sentorder.compare", "good.jsonl", "--as", repository, "--json", "out.json")
    assert result.returncode == 0, result.stderr
    assert line in [" ".join(found.split()) for found in result.stdout.splitlines()]
    written = json.loads((tmp_path / "out.json").read_text())
    (file,) = written["files"]
    assert written["as"] == repository and written["notes"].keys() == file["figures"].keys()
    assert all(value is None or math.isfinite(value) for value in file["figures"].values())
    assert all(note in result.stdout for note in written["notes"].values())


# --- what is refused ------------------------------------------------------------------------------------------------

FILES = {
    "good.jsonl": GOOD,
    "fewer.jsonl": GOOD[:2],
    "longer.jsonl": [*GOOD[:3], {"id": "d", "order": [0, 1, 2, 3]}],
    "gap.jsonl": [*GOOD, {"id": "e", "order": [0, 2]}],
    "twice.jsonl": [{"id": "e", "order": [0, 0]}],
    "negative.jsonl": [{"id": "e", "order": [0, -1]}],
    "fraction.jsonl": [{"id": "e", "order": [0, 1.0]}],
    "truth.jsonl": [{"id": "e", "order": [False, True]}],
    "text.jsonl": [{"id": "e", "order": "0 1"}],
    "nothing.jsonl": [{"id": "e", "order": []}],
    "same.jsonl": [*GOOD, {"id": "b", "order": [1, 0]}],
    "nameless.jsonl": [GOOD[0], {"order": [0, 1]}],
    "null.jsonl": [{"id": None, "order": [0, 1]}],
    "genre.jsonl": [{"id": "e", "order": [0, 1], "genre": 3}],
    "singles.jsonl": [{"id": "e", "order": [0]}],
    "one.jsonl": GOOD[:1],
}
FEWER = "fewer.jsonl: lacks 2 of the documents of good.jsonl (the first: 'c'); only the same documents can be compared"
MISTAKES = [
    ("", "the following arguments are required: PREDICTIONS"),
    ("missing.jsonl", "missing.jsonl: there is no such file"),
    ("good.jsonl/inner", "good.jsonl/inner: cannot be read (Not a directory)"),
    ("empty", "empty: holds no predictions.jsonl; give the folder of a finished run"),
    ("blank.jsonl", "blank.jsonl: the file holds no predictions"),
    ("latin.jsonl", "latin.jsonl, line 2: not UTF-8 text; convert"),
    ("torn.jsonl", "torn.jsonl, line 3: not valid JSON (Expecting"),
    ("deep.jsonl", "deep.jsonl, line 1: not a prediction ("),
    ("digits.jsonl", "digits.jsonl, line 1: not a prediction ("),
    ("list.jsonl", 'list.jsonl, line 1: expected an object with "id" and "order"'),
    ("nameless.jsonl", 'nameless.jsonl, line 2: expected an object with "id" and "order"'),
    ("null.jsonl", 'null.jsonl, line 1: "id" must be a string or a whole number'),
    ("genre.jsonl", 'genre.jsonl, line 1: "genre" must be a string'),
    ("gap.jsonl", 'gap.jsonl, line 5: "order" must hold the numbers of the sentences, from 0 on, each once'),
    ("twice.jsonl", 'twice.jsonl, line 1: "order" must hold'),
    ("negative.jsonl", 'negative.jsonl, line 1: "order" must hold'),
    ("fraction.jsonl", 'fraction.jsonl, line 1: "order" must hold'),
    ("truth.jsonl", 'truth.jsonl, line 1: "order" must hold'),
    ("text.jsonl", 'text.jsonl, line 1: "order" must hold'),
    ("nothing.jsonl", 'nothing.jsonl, line 1: "order" must hold'),
    ("same.jsonl", "same.jsonl, line 5: the id 'b' stands in line 2 already"),
    ("same.jsonl --as berson", "same.jsonl, line 5: the id 'b' stands in line 2 already"),
    ("singles.jsonl", "singles.jsonl: holds no document of two sentences or more"),
    ("one.jsonl A=one.jsonl", "one.jsonl: holds one document of two sentences or more; to compare takes two"),
    ("good.jsonl fewer.jsonl", FEWER),
    ("fewer.jsonl good.jsonl", FEWER),
    ("A=good.jsonl,fewer.jsonl", FEWER),
    ("good.jsonl longer.jsonl", "longer.jsonl: document 'd' has 4 sentences, in good.jsonl it has 3; only the same"),
    ("good.jsonl good.jsonl", "good.jsonl: is given twice; call systems by names of their own, as in A=good.jsonl"),
    ("A=good.jsonl,./good.jsonl", "A=good.jsonl,./good.jsonl: has the same file twice"),
    ("A=good.jsonl,", "A=good.jsonl,: expected FILE, or NAME=FILE,FILE,..."),
    ("=good.jsonl", "=good.jsonl: expected FILE, or NAME=FILE,FILE,..."),
    ("good.jsonl --as sacrebleu", "--as sacrebleu: choose one of btsort, berson, rebart"),
    ("good.jsonl --json good.jsonl", "--json good.jsonl: the name of the file to write must end in .json"),
    ("good.jsonl --json no/such/out.json", "--json no/such/out.json: cannot be written (No such file"),
    ("good.jsonl --speed 3", "--speed: there is no such argument"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_sentence(run: Run, tmp_path: Path, command: str, message: str) -> None:
    for name, rows in FILES.items():
        write(tmp_path / name, rows)
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.jsonl").write_text("\n  \n")
    (tmp_path / "torn.jsonl").write_text(json.dumps(GOOD[0]) + '\n\n{"id": "x", "order": [\n')
    (tmp_path / "deep.jsonl").write_text('{"id": "x", "order": ' + "[" * 100_000)
    (tmp_path / "digits.jsonl").write_text('{"id": "x", "order": [' + "1" * 10_000 + "]}")
    (tmp_path / "list.jsonl").write_text('["id", "order"]\n')
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD[0]).encode() + b'\n{"id": "gr\xfc\xdfe", "order": [0, 1]}\n')
    before = sorted(tmp_path.rglob("*"))
    result = run("python", "-m", "sentorder.compare", *command.split())
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before

"""Pages and pictures of runs."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from sentorder import SentenceOrderer, UserError
from sentorder.charts import (
    Group,
    Learning,
    draw_groups,
    draw_learning,
    draw_precedence,
    draw_reliability,
    position_counts,
)
from sentorder.report import read_run, texts_of, write_report
from tests.conftest import Run

PICTURES = ("learning", "tau_by_sentences", "tau_by_genre", "positions", "reliability")


def test_position_counts() -> None:
    shares = position_counts([[0, 1, 2], [1, 0, 2]])
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    # Sentence 2 is put first: its row says so in column 0.
    assert position_counts([[2, 0, 1]])[2].tolist() == [1.0, 0.0, 0.0]


def make_run(folder: Path, seed: int) -> Path:
    """A finished run on twenty documents, with texts that look like HTML."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n{"step": 2, "eval_kendall_tau": 0.3}\n'
        '{"step": 2, "test_kendall_tau": 0.2}\n'
    )
    random = np.random.default_rng(seed)
    texts, rows = [], []
    for number in range(20):
        n = 3 + number % 3
        texts.append({"id": f"d{number}", "sentences": [f"<b>{number}</b> & sentence {i}." for i in range(n)]})
        order = list(range(n)) if number in (5, 6) else random.permutation(n).tolist()
        rows.append({"id": f"d{number}", "order": order, "confidence": number / 20, "genre": "ab"[number % 2]})
    for name, lines in (("predictions.jsonl", rows), ("test.jsonl", texts)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "arguments.yaml").write_text(f"dataset: test={folder / 'test.jsonl'}\n")
    return folder


class Outline(HTMLParser):
    """Which tags are opened and left open, headings, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag not in ("meta", "img", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "line":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


def test_a_page_of_one_run(run: Run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one", seed=0)
    result = run("python", "-m", "sentorder.report", str(folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder}/report/index.html\n"
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    outline = Outline(page)
    assert outline.open == []
    assert outline.headings[:5] == ["Learning", "By number of sentences", "By genre", "Positions", "Confidence"]
    # The page holds its pictures, and needs nothing from anywhere.
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    pngs = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert pngs == [(folder / f"report/{name}.png").read_bytes() for name in PICTURES]
    for name in (*PICTURES, "overview"):
        assert np.std(image.imread(folder / f"report/{name}.png")) > 0.05
    assert image.imread(folder / "report/overview.png").shape[:2] == (570, 1440)
    # Of the two that are right the longer one comes first; texts are texts, not tags.
    best = [heading for heading in outline.headings if "(best)" in heading]
    assert best[0] == "d5: tau 1.00 (best)" and all("tau 1.00" in heading for heading in best[:2])
    assert len([heading for heading in outline.headings if "(worst)" in heading]) == 3
    assert "<b>5</b> & sentence 0." in outline.words


def test_a_page_of_two_runs(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one", seed=0), make_run(tmp_path / "two", seed=1)
    rows = (two / "predictions.jsonl").read_text().splitlines()
    (two / "predictions.jsonl").write_text("\n".join(rows[::-1]) + "\n")  # in another order: ids say which is which
    page = Outline(write_report([one, two], tmp_path / "out").read_text(encoding="utf-8"))
    assert "less one" in page.words and "Documents of two" in page.headings
    assert not (tmp_path / "out/overview.png").exists()
    rights = {row.id: row.order for row in read_run(two).predictions}
    assert rights["d5"] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="is given twice"):
        write_report([one, one], tmp_path / "out")
    (two / "predictions.jsonl").write_text("\n".join(rows[1:]) + "\n")
    with pytest.raises(UserError, match="two: lacks 1 of the documents of one"):
        write_report([one, two], tmp_path / "out")


def test_texts_that_are_gone_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one", seed=0)
    (folder / "test.jsonl").unlink()
    with pytest.raises(UserError, match="there is no such file"):
        texts_of(folder)
    page = Outline(write_report([folder], tmp_path / "out").read_text(encoding="utf-8"))
    assert "Documents are not shown: " in page.words and page.headings[-1] == "Confidence"
    # Nor do confidences or genres have to be there: other programs write predictions too.
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    lines = [json.dumps({name: row[name] for name in ("id", "order")}) for row in rows]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    page = Outline(write_report([folder], tmp_path / "out").read_text(encoding="utf-8"))
    assert page.headings == ["Learning", "By number of sentences", "Positions"]


def test_a_run_without_test_shows_what_it_learned(tmp_path: Path) -> None:
    """Before its end, or for want of a test split; beside one that was tested, too."""
    one, two = make_run(tmp_path / "one", seed=0), make_run(tmp_path / "two", seed=1)
    (two / "predictions.jsonl").unlink()
    log = (two / "metrics.jsonl").read_text().splitlines()
    (two / "metrics.jsonl").write_text("\n".join(log[:3]) + "\n")
    for runs, out in (([two], tmp_path / "out"), ([one, two], tmp_path / "both")):
        page = Outline(write_report(runs, out).read_text(encoding="utf-8"))
        assert page.headings == ["Learning"] and page.open == []
        assert "Not tested so far, or without a test split: two." in page.words
        assert "\ntwo20.3002\n" in page.words  # 2 steps, the best tau 0.300 at step 2
        assert [path.name for path in sorted(out.iterdir())] == ["index.html", "learning.png"]
    (two / "metrics.jsonl").write_text(log[0] + "\n")
    page = Outline(write_report([two], tmp_path / "out").read_text(encoding="utf-8"))
    assert "two1not evaluated" in page.words
    (two / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="no step was logged yet"):
        write_report([two], tmp_path / "out")


def test_what_is_drawn_is_what_was_found() -> None:
    learning = Learning("x", [(1, 0.7)], [], [])
    assert [text.get_text() for text in draw_learning([learning]).axes[1].texts] == ["not evaluated so far"]
    assert not draw_learning([learning, learning._replace(test=[(1, 0.5)])]).axes[1].texts
    taus = np.array([0.0, 1.0] * 10)
    axis = draw_groups("", {"x": [Group("4", taus), Group("5", np.ones(2))]}).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["4\n(20)", "5\n(2)"]
    (container,) = axis.containers
    assert container.lines[0].get_ydata().tolist() == [0.5, 1.0]
    confidences = np.linspace(0, 1, 80)
    (container,) = draw_reliability({"x": (confidences, confidences)}).axes[0].containers
    assert container.lines[0].get_xdata() == pytest.approx(container.lines[0].get_ydata())
    (container,) = draw_reliability({"x": (confidences[:12], confidences[:12])}).axes[0].containers
    assert len(container.lines[0].get_xdata()) == 2  # of twelve documents, not eight groups of one or two
    probabilities = np.array([[0.5, 0.9], [0.1, 0.5]])
    axis = draw_precedence(["a", "b"], probabilities).axes[0]
    assert [text.get_text() for text in axis.texts] == ["90", "10"]


def test_a_folder_without_a_run(run: Run, tmp_path: Path) -> None:
    result = run("python", "-m", "sentorder.report", str(tmp_path))
    assert result.returncode == 2 and "give the folder of a run" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_pairs_of_a_document_are_explained(run: Run, model_path: str, tiny_encoder: str, tmp_path: Path) -> None:
    sentences = ["The sun rose.", "It set.", "Noon came.", "Birds sang."]
    model = SentenceOrderer.from_encoder(tiny_encoder, method="pairwise")
    found = model.precedence(sentences)
    assert found.shape == (4, 4) and found + found.T == pytest.approx(np.ones((4, 4)), abs=1e-6)
    turned = model.precedence(sentences[::-1])
    assert turned[::-1, ::-1] == pytest.approx(found, abs=1e-5)
    order = model.order([sentences])[0].order
    upper = found[np.ix_(order, order)][np.triu_indices(4, 1)]
    assert np.log(upper).sum() == pytest.approx(model.order([sentences])[0].score, abs=1e-4)
    with pytest.raises(UserError, match="regression says nothing about pairs"):
        SentenceOrderer.from_encoder(tiny_encoder, method="regression").precedence(sentences)

    command = ("python", "-m", "sentorder.predict", "--model_path", model_path, "--explain")
    done = run(*command, "pairs.png", stdin="\n".join(sentences))
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == sorted(sentences), done.stderr
    assert np.std(image.imread(tmp_path / "pairs.png")) > 0.05
    for arguments, text, message in (
        (["pairs.jpg"], "a\nb", "must end in .png"),
        (["pairs.png", "--score"], "a\nb", "--explain: has no meaning with --score"),
        (["pairs.png"], "a\nb\n\nc\nd", "draws one document, and standard input has 2"),
        (["no/pairs.png"], "a\nb", "--explain no/pairs.png: cannot be written"),
    ):
        done = run(*command, *arguments, stdin=text)
        assert done.returncode == 2 and message in done.stderr, done.stderr

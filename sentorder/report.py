"""Runs in pictures, finished or not: ``python -m sentorder.report runs/1 [runs/2 ...]`` writes a page and its PNGs."""

from __future__ import annotations

import argparse
import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from .arguments import SourceArguments
from .charts import (
    Group,
    Learning,
    draw_groups,
    draw_learning,
    draw_overview,
    draw_positions,
    draw_reliability,
)
from .command_line import run_command
from .compare import Scored, System, differences, score
from .data.json_files import parse_json
from .data.sources import load_split
from .data.text_files import File
from .errors import UserError
from .files import disk_reason
from .metrics import MAIN_FIGURES, kendall_tau, positions_of
from .predictions import PREDICTIONS, Prediction, distinct_ids, like_the_first, read_predictions
from .run_folder import METRICS

SHOWN = 3
"""Documents with the best orders (of those that are right the longest), and as many with the worst."""
TITLES = {"kendall_tau": "Kendall's tau", "accuracy": "accuracy", "perfect_match_ratio": "perfect match ratio"}


class ReadRun(NamedTuple):
    """What the folder of a run holds."""

    folder: Path
    learning: Learning
    predictions: list[Prediction]
    """On test; empty while there are none."""


class Picture(NamedTuple):
    """A figure of the page."""

    name: str
    """Of its file, without ending."""
    title: str
    description: str
    figure: Any


# --- reading --------------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> ReadRun:
    """Read what a run has left so far.

    Raises:
        UserError: if no step of it was logged, or a file cannot be read.
    """
    log = folder / METRICS
    if not log.exists():
        raise UserError(f"{log}: there is no such file; give the folder of a run.")
    rows = [parse_json(line, str(log), number, what="log") for number, line in File.at(log).lines()]
    losses, validation, test = (
        [(int(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
        for name in ("loss", "eval_kendall_tau", "test_kendall_tau")
    )
    if not losses:
        raise UserError(f"{log}: no step was logged yet.")
    predictions = read_predictions(folder) if (folder / PREDICTIONS).exists() else []
    return ReadRun(folder, Learning(folder.name or str(folder), losses, validation, test), predictions)


def texts_of(folder: Path) -> dict[str, list[str]]:
    """The test documents of a run by their ids, read again from where it had them.

    Raises:
        UserError: if the data set is not there any more.
    """
    try:
        values = yaml.safe_load((folder / "arguments.yaml").read_text(encoding="utf-8"))
        asked = SourceArguments(
            **{item.name: values[item.name] for item in fields(SourceArguments) if item.name in values}
        )
    except (OSError, yaml.YAMLError, TypeError):
        raise UserError(f"{folder}: has no arguments.yaml that says where the texts are.") from None
    table, _ = load_split(asked.dataset, "test", asked.source_options)
    return dict(zip(distinct_ids(table["id"]), table["sentences"], strict=True))


# --- pictures -------------------------------------------------------------------------------------------------------


def draw_run(folder: Path) -> Any:
    """One run at a glance, as a matplotlib figure.

    Args:
        folder: of a finished run.

    Raises:
        UserError: if matplotlib or the run's files are missing.
    """
    run = read_run(folder)
    return draw_overview(run.learning, [prediction.order for prediction in run.predictions])


def pictures_of(runs: Mapping[str, ReadRun], scored: Sequence[Scored]) -> list[Picture]:
    """All figures of the page.

    Args:
        runs: by name.
        scored: the figures of each, in the same order; empty where not all were tested.
    """
    orders = {name: [prediction.order for prediction in run.predictions] for name, run in runs.items()}
    pictures = [
        Picture(
            "learning",
            "Learning",
            "Training loss, and Kendall's tau on validation; the star is test, with the weights that were kept.",
            draw_learning([run.learning._replace(name=name) for name, run in runs.items()]),
        )
    ]
    if not scored:
        return pictures
    for kind, title in (("sentences", "By number of sentences"), ("genre", "By genre")):
        if all(kind in item.groups for item in scored):
            groups = {
                name: [Group(label, item.figures["kendall_tau"][mask]) for label, mask in item.groups[kind]]
                for name, item in zip(runs, scored, strict=True)
            }
            pictures.append(
                Picture(f"tau_by_{kind}", title, "Tau with its 95 % interval; in brackets how many documents.",
                        draw_groups(title, groups))
            )  # fmt: skip
    pictures.append(
        Picture(
            "positions",
            "Positions",
            "Where the sentences of each true position came out: the share of each row.",
            draw_positions(orders),
        )
    )
    known = {name: _reliability(run) for name, run in runs.items()}
    if all(len(confidences) > 1 for confidences, _ in known.values()):
        pictures.append(
            Picture(
                "reliability",
                "Confidence",
                "Documents in groups of like confidence, and the tau that they reached; on the line, confidence is "
                "what it says.",
                draw_reliability(known),
            )
        )
    return pictures


def _reliability(run: ReadRun) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and tau of the documents that have both."""
    pairs = [
        (row.confidence, kendall_tau(positions_of(row.order), range(len(row.order))))
        for row in run.predictions
        if len(row.order) > 1 and row.confidence is not None
    ]
    found = np.array(pairs).reshape(-1, 2)
    return found[:, 0], found[:, 1]


# --- the page -------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; padding: 1rem; max-width: 60rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 42rem; } img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; white-space: nowrap; }
.document { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start; }
.document svg { flex: none; } .document ol { flex: 1 1 20rem; margin: 0; padding-left: 1.6rem; }
.note { color: #666; }
"""


def page(
    runs: Mapping[str, ReadRun],
    scored: Sequence[Scored],
    pictures: Sequence[tuple[Picture, bytes]],
    texts: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> str:
    """The page, with everything in it: it needs no other file.

    Args:
        runs: by name.
        scored: the figures of each, in the same order; empty where not all were tested.
        pictures: each with its PNG.
        texts: of the test documents by id; without them documents are not shown.
        notes: what there is to say.
    """
    names = ", ".join(runs)
    table = _scores_table(runs, scored) if scored else _validation_table(runs)
    parts = [f"<h1>{html.escape(names)}</h1>", table]
    if len(scored) > 1 and scored[0].scores["documents"] > 1:
        parts.append(_differences_table(scored))
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    for picture, png in pictures:
        source = base64.b64encode(png).decode()
        parts += [
            f"<h2>{html.escape(picture.title)}</h2>",
            f"<p>{html.escape(picture.description)}</p>",
            f'<img src="data:image/png;base64,{source}" alt="{html.escape(picture.title)}">',
        ]
    for name, run in runs.items():
        if texts:
            parts.append(_documents(name, run, texts))
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(names)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = [[html.escape(cell) for cell in row] for row in rows]
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in others]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _validation_table(runs: Mapping[str, ReadRun]) -> str:
    rows = [["validation", "steps logged", f"best {TITLES['kendall_tau']}", "at step"]]
    for name, run in runs.items():
        step, tau = max(run.learning.validation, key=lambda point: point[1], default=(None, None))
        best = ["not evaluated", ""] if tau is None else [f"{tau:.3f}", str(step)]
        rows.append([name, str(run.learning.losses[-1][0]), *best])
    return _table(rows)


def _scores_table(runs: Mapping[str, ReadRun], scored: Sequence[Scored]) -> str:
    rows = [["test", "documents", *(TITLES[name] for name in MAIN_FIGURES)]]
    for name, item in zip(runs, scored, strict=True):
        cells = []
        for figure in MAIN_FIGURES:
            low, high = item.scores.get(f"{figure}_low"), item.scores.get(f"{figure}_high")
            interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
            cells.append(f"{item.scores[figure]:.3f}{interval}")
        rows.append([name, str(item.scores["documents"]), *cells])
    return _table(rows)


def _differences_table(scored: Sequence[Scored]) -> str:
    first, *others = scored
    rows = [[f"less {first.system.name}", *(TITLES[name] for name in MAIN_FIGURES)]]
    for other in others:
        found = differences(first, other)
        cells = [
            f"{item.difference:+.3f} ({item.low:+.3f} to {item.high:+.3f}), p {item.p_value:.4f}"
            for item in (found[name] for name in MAIN_FIGURES)
        ]
        rows.append([other.system.name, *cells])
    return "<p>On the same documents, paired:</p>\n" + _table(rows)


def _documents(name: str, run: ReadRun, texts: Mapping[str, Sequence[str]]) -> str:
    """The documents that came out best and worst, in their true order, with their moves."""
    rated = sorted(
        (round(kendall_tau(positions_of(row.order), range(len(row.order))), 6), len(row.order), row.id, row.order)
        for row in run.predictions
        if len(row.order) > 2 and len(texts.get(row.id, ())) == len(row.order)
    )
    worst = rated[:SHOWN]
    parts = []
    for title, some in (("worst", worst), ("best", [item for item in rated[: -SHOWN - 1 : -1] if item not in worst])):
        for tau, _, id, order in some:
            sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in texts[id])
            parts.append(
                f"<h3>{html.escape(id)}: tau {tau:.2f} ({title})</h3>\n"
                f'<div class="document">{_moves(order)}<ol>{sentences}</ol></div>'
            )
    if not parts:
        return ""
    return (
        f"<h2>Documents of {html.escape(name)}</h2>\n<p>The sentences stand in their true order; a line leads from the "
        "place of each to the one that the model gave it.</p>\n" + "\n".join(parts)
    )


def _moves(order: Sequence[int]) -> str:
    """Lines from true places (left) to predicted ones (right), as SVG."""
    places, step = positions_of(order), 26
    lines = []
    for true, predicted in enumerate(places.tolist()):
        colour = "#3a6ea5" if true == predicted else "#d1701c"
        y, to = step * true + 14, step * predicted + 14
        lines.append(
            f'<line x1="26" y1="{y}" x2="104" y2="{to}" stroke="{colour}" stroke-width="2"/>'
            f'<text x="12" y="{y + 5}" text-anchor="middle">{true + 1}</text>'
            f'<text x="118" y="{y + 5}" text-anchor="middle">{true + 1}</text>'
        )
    height = step * len(order) + 4
    label = "the model's order: " + " ".join(str(index + 1) for index in order)
    return (
        f'<svg width="130" height="{height}" viewBox="0 0 130 {height}" font-size="14" role="img" '
        f'aria-label="{label}">{"".join(lines)}</svg>'
    )


# --- the command ----------------------------------------------------------------------------------------------------


def write_report(folders: Sequence[Path], output: Path) -> Path:
    """Write ``index.html`` and the PNGs of one run or several.

    Args:
        folders: of runs; what is drawn of test needs all of them to be finished, on the same test documents.
        output: a folder.

    Returns:
        The page.

    Raises:
        UserError: if a run has no log yet, their test documents differ, or the folder cannot be written.
    """
    found = [read_run(folder) for folder in folders]
    names = [run.learning.name for run in found]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"{folders[0]}: is given twice.")
    runs = dict(zip(names, found, strict=True))
    notes, scored, texts = [], [], {}
    untested = [name for name, run in runs.items() if not run.predictions]
    if untested:
        notes.append(f"Not tested so far, or without a test split: {', '.join(untested)}.")
    else:
        aligned = like_the_first([(name, run.predictions) for name, run in runs.items()])
        scored = [
            score(System(name, [str(run.folder)]), [rows])
            for (name, run), rows in zip(runs.items(), aligned, strict=True)
        ]
        try:
            texts = texts_of(folders[0])
        except UserError as error:
            notes = [f"Documents are not shown: {error}"]
    pictures = pictures_of(runs, scored)
    alone = []
    if len(found) == 1 and scored:
        orders = [prediction.order for prediction in found[0].predictions]
        alone = [Picture("overview", "", "", draw_overview(found[0].learning, orders))]
    drawn = [(picture, _png(picture.figure)) for picture in pictures]
    try:
        output.mkdir(parents=True, exist_ok=True)
        for picture, png in [*drawn, *((picture, _png(picture.figure)) for picture in alone)]:
            (output / f"{picture.name}.png").write_bytes(png)
        (output / "index.html").write_text(page(runs, scored, drawn, texts, notes), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output_dir {output}: cannot be written ({disk_reason(error)}).") from None
    return output / "index.html"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main() -> None:
    """The command line program."""
    parser = argparse.ArgumentParser(
        prog="python -m sentorder.report", description="Draw one run, or several beside each other."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="The folder of a run, such as runs/1.")
    parser.add_argument("--output_dir", type=Path, help="Where to write (default: report/ in the first run's folder).")
    given = parser.parse_args()
    print(write_report(given.runs, given.output_dir or given.runs[0] / "report"))


if __name__ == "__main__":
    run_command(main)

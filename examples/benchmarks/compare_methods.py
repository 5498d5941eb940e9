"""Train every way to order sentences from the same encoder, on the same documents, for the same number of steps.

    python examples/benchmarks/compare_methods.py [--only METHOD ...] [--seeds 42 43 44] [--screen_steps 170]
                                                  [--finalists 5] [--output_dir runs/compare] [ARGUMENTS OF TRAIN]

First every contestant is screened: one seed, a short schedule, scored on validation alone. The best few of them are
then trained for as long as the arguments say, with every seed; the step that is kept is chosen on validation, and test
is looked at once per run. (No more contestants than ``--finalists``: no screening. No test split: no test.) Ways to
order that learn nothing are scored beside them, as the floor.

Writes ``screen.md``, ``table.md``, both as JSON, and ``table.png`` into the output folder. Each run is a process of its
own, so that its memory can be told, and a folder: one that is finished is not trained again, so an interrupted
comparison goes on where it stopped, and more seeds or contestants join those that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sentorder import SentenceOrderer
from sentorder.arguments import TrainArguments
from sentorder.command_line import parse_arguments, run_command
from sentorder.data.formats import Document
from sentorder.data.sources import load_splits
from sentorder.errors import UserError
from sentorder.evaluation import scores_of
from sentorder.files import write_json, write_json_lines
from sentorder.methods import TRAINED, UNTRAINED
from sentorder.metrics import kendall_tau, positions_of
from sentorder.model_card import library_versions
from sentorder.significance import mean_interval, over_runs, paired_difference

TUTORIAL = "regression-mean"
"""The system of the tutorial, read in the way that suits the default encoder: what the others are compared with."""
CONTESTANTS: dict[str, dict[str, str]] = {
    "regression-marker": {"method": "regression", "pooling": "marker"},  # as the tutorial reads it
    TUTORIAL: {"method": "regression", "pooling": "mean"},
    **{name: {"method": name} for name in TRAINED},
    **{f"{name}-restarted": {"method": name, "backbone": "restarted"} for name in ("pairwise", "pointer")},
    **{
        f"{name}-hierarchical": {"method": name, "backbone": "hierarchical"}
        for name in ("listmle", "pairwise", "pairwise-neighbours", "pointer", "pointer-pairs", "joint")
    },
}
FIGURES = ("kendall_tau", "accuracy", "perfect_match_ratio")
TIMED = 200
"""Documents whose ordering is timed."""


# --- runs -------------------------------------------------------------------------------------------------------------


def run_of(wanted: TrainArguments, folder: Path, validation: Sequence[Document]) -> dict[str, Any]:
    """What a run came to, trained now unless it is there."""
    results = folder / "run.json"
    if results.exists():
        trained_with = yaml.safe_load((folder / "arguments.yaml").read_text(encoding="utf-8"))
        # What was left open (None) has been filled in by the run.
        asked = {name: value for name, value in dataclasses.asdict(wanted).items() if value is not None}
        if asked != {name: trained_with.get(name) for name in asked}:
            raise UserError(f"{folder}: holds a run with other arguments; choose another --output_dir.")
    else:
        started = time.perf_counter()
        memory = _train(wanted, folder)
        minutes = (time.perf_counter() - started) / 60
        logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        speeds = [row["documents_per_second"] for row in logged if "documents_per_second" in row]
        ordered = ordering_of(SentenceOrderer.from_pretrained(folder / "model"), validation)
        training = {"minutes": minutes, "memory": memory, "training_speed": float(np.median(speeds))}
        write_json(results, ordered | training | {"test": _test_orders(folder)})
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return found


def _train(wanted: TrainArguments, folder: Path) -> float:
    """Train in a process of its own; the most memory that it held, in GB."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = folder.with_name(folder.name + ".yaml")
    asked.write_text(yaml.safe_dump(dataclasses.asdict(wanted)), encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-m", "sentorder.train", "--config", str(asked)])
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UserError(f"{folder}: the run ended with exit code {process.returncode}; what it said stands above.")
    asked.unlink()
    return usage.ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)


def _test_orders(folder: Path) -> list[list[int]] | None:
    predictions = folder / "predictions.jsonl"
    if not predictions.exists():
        return None
    return [json.loads(line)["order"] for line in predictions.read_text(encoding="utf-8").splitlines()]


def ordering_of(model: SentenceOrderer, documents: Sequence[Document]) -> dict[str, Any]:
    """The orders of the documents, and how many a second it makes of them."""
    texts = [document.sentences for document in documents]
    model.order(texts[:8])
    started = time.perf_counter()
    model.order(texts[:TIMED])
    speed = len(texts[:TIMED]) / (time.perf_counter() - started)
    return {"validation": [found.order for found in model.order(texts)], "ordering_speed": speed}


# --- tables -----------------------------------------------------------------------------------------------------------


def taus(orders: Sequence[Sequence[int]]) -> np.ndarray:
    """Kendall's tau of each document."""
    return np.asarray([kendall_tau(positions_of(order), range(len(order))) for order in orders])


def row_of(name: str, runs: Sequence[dict[str, Any]], split: str) -> dict[str, Any]:
    """Means over the seeds; the interval is that of tau over documents, each averaged over the seeds first."""
    scores = [scores_of(run[split]) for run in runs]
    interval = mean_interval(over_runs([taus(run[split]) for run in runs]))
    costs = [name for name in ("minutes", "training_speed", "ordering_speed", "memory") if name in runs[0]]
    return (
        {"name": name, "seeds": len(runs), "documents": len(runs[0][split])}
        | {figure: float(np.mean([score[figure] for score in scores])) for figure in FIGURES}
        | {"low": interval.low, "high": interval.high, "by_seed": [score["kendall_tau"] for score in scores]}
        | {cost: float(np.mean([run[cost] for run in runs])) for cost in costs}
    )


def differences(runs: dict[str, list[dict[str, Any]]], split: str, to: str) -> dict[str, dict[str, float]]:
    """Of each contestant's tau to that of one, paired by document, each averaged over its seeds first."""
    means = {name: over_runs([taus(run[split]) for run in of_name]) for name, of_name in runs.items()}
    return {name: paired_difference(means[to], values)._asdict() for name, values in means.items() if name != to}


def markdown(rows: Sequence[dict[str, Any]], split: str, against: dict[str, dict[str, dict[str, float]]]) -> str:
    """The table as README shows it, best first."""
    head = ["method", "seeds", f"{split} tau (95 %)", "accuracy", "perfect match"]
    head += [f"tau less that of {to} (95 %), p" for to in against]
    head += ["trained docs/s", "ordered docs/s", "GB"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in sorted(rows, key=lambda row: -row["kendall_tau"]):
        cells = [row["name"], str(row["seeds"])]
        cells.append(f"{row['kendall_tau']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
        cells += [f"{row['accuracy']:.3f}", f"{row['perfect_match_ratio']:.3f}"]
        for found in against.values():
            gap = found.get(row["name"])
            cells.append(
                f"{gap['difference']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}), {gap['p_value']:.4f}"
                if gap
                else ""
            )
        cells += [f"{row[cost]:.1f}" if cost in row else "" for cost in ("training_speed", "ordering_speed", "memory")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """One line per contestant: its tau, its interval, and each seed."""
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: row["kendall_tau"])
    figure = Figure(figsize=(8, 1 + 0.3 * len(rows)), dpi=150, layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        axis.plot([row["low"], row["high"]], [place, place], color="tab:blue", linewidth=2, alpha=0.5)
        axis.plot(row["by_seed"], [place] * row["seeds"], "|", color="0.3", markersize=9)
        axis.plot(row["kendall_tau"], place, "o", color="tab:blue")
    axis.axvline(0, color="0.7", linewidth=1)
    axis.set(yticks=range(len(rows)), yticklabels=[row["name"] for row in rows], title=title)
    axis.set_xlabel("Kendall's tau: mean, 95 % interval over documents, and each seed")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def write_table(
    runs: dict[str, list[dict[str, Any]]], split: str, name: str, against: Sequence[str], output: Path
) -> list[dict[str, Any]]:
    """Print a table and write it; the contestants with a run."""
    rows = [row_of(contestant, found, split) for contestant, found in runs.items()]
    gaps = {to: differences(runs, split, to) for to in against if to in runs and len(runs) > 1}
    table = markdown(rows, split, gaps)
    (output / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    write_json(output / f"{name}.json", {"rows": rows, "differences": gaps, "versions": library_versions()})
    draw(rows, f"{split}: {rows[0]['documents']} documents", output / f"{name}.png")
    print(f"\n{table}")
    return rows


# --- the comparison ---------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--only", choices=CONTESTANTS, nargs="+", default=list(CONTESTANTS), metavar="METHOD")
    parser.add_argument("--screen_steps", type=int, default=170)
    parser.add_argument("--finalists", type=int, default=5, help="0: screen only.")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/compare"))
    ours, rest = parser.parse_known_args()
    arguments, _ = parse_arguments(TrainArguments, rest, program="compare_methods.py", description="")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError('The plot needs matplotlib: pip install "sentorder[plot]".') from None
    splits = load_splits(arguments.dataset).splits
    if "validation" not in splits or arguments.eval_strategy == "no":
        raise UserError(f"--dataset {arguments.dataset}: there must be a validation split, and an evaluation on it.")
    output: Path = ours.output_dir
    data = output / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split, documents in splits.items():
        rows = [{"id": d.id, "genre": d.genre, "sentences": d.sentences} for d in documents]
        write_json_lines(data / f"{split}.jsonl", rows)

    def trained(name: str, seed: int, folder: Path, given: Sequence[str], **changes: Any) -> dict[str, Any]:
        dataset = ",".join(f"{split}={data / split}.jsonl" for split in given)
        changes |= {"seed": seed, "output_dir": str(folder), "overwrite_output_dir": True, "dataset": dataset}
        wanted = dataclasses.replace(arguments, **{**CONTESTANTS[name], **changes})
        return run_of(wanted, folder, splits["validation"][: arguments.max_eval_documents])

    floors = {
        name: [
            {
                split: ordering_of(model, splits[split][: arguments.max_eval_documents])["validation"]
                for split in ("validation", "test")
                if split in splits
            }
        ]
        for name in UNTRAINED
        for model in [SentenceOrderer.from_encoder(arguments.model_name_or_path, method=name)]
    }

    finalists = list(ours.only)
    if len(finalists) > ours.finalists:
        screened: dict[str, list[dict[str, Any]]] = {}
        for name in finalists:
            folder = output / "screen" / name
            found = trained(
                name, ours.seeds[0], folder, ["train", "validation"], max_steps=ours.screen_steps, save_strategy="no"
            )
            screened[name] = [found]
        rows = write_table(screened | floors, "validation", "screen", [TUTORIAL], output)
        learned = [row for row in rows if row["name"] in screened]
        best = sorted(learned, key=lambda row: -row["kendall_tau"])[: ours.finalists]
        finalists = [row["name"] for row in best]
    runs = {
        name: [trained(name, seed, output / f"{name}-{seed}", list(splits)) for seed in ours.seeds]
        for name in finalists
    }
    if runs:
        for split in ("validation", "test"):
            if split in splits:
                write_table(runs | floors, split, split, [TUTORIAL, next(iter(runs))], output)


if __name__ == "__main__":
    run_command(main)

"""Train every way to order sentences from the same encoder, on the same documents, for the same number of steps.

    python examples/benchmarks/compare_methods.py [--only METHOD ...] [--seeds 42 43 44] [--screen_steps 170]
                                                  [--finalists 5] [--output_dir runs/compare] [ARGUMENTS OF TRAIN]

First every contestant is screened: one seed, a short schedule, scored on validation alone. The best few of them, and
the tutorial's system, are then trained for as long as the arguments say, with every seed; the step that is kept is
chosen on validation, and test is looked at once per run. (No more contestants than ``--finalists``: no screening. No
test split: no test.) Ways to order that learn nothing are scored beside them, as the floor.

Writes ``screen``, ``validation`` and ``test``, each as ``.md``, ``.json`` and ``.png``, into the output folder. Each
run is a process of its own, so that its memory can be told, and a folder: one that is finished is not trained again, so
an interrupted comparison goes on where it stopped, and more seeds or contestants join those that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
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
from datasets import Dataset

from sentorder import SentenceOrderer
from sentorder.arguments import SourceArguments, TrainArguments
from sentorder.command_line import parse_arguments, run_command
from sentorder.data.sources import load_splits
from sentorder.data.splitting import first_rows
from sentorder.errors import UserError
from sentorder.files import write_json, write_json_lines
from sentorder.methods import TRAINED, UNTRAINED
from sentorder.metrics import MAIN_FIGURES, averages, figures_of_documents, positions_of
from sentorder.model_card import library_versions
from sentorder.predictions import read_predictions
from sentorder.significance import mean_interval, over_runs, paired_difference

TUTORIAL = "regression-mean"
"""The system of the tutorial, read in the way that suits the default encoder: what the others are compared with."""
CONTESTANTS: dict[str, dict[str, str]] = {
    "regression-marker": {"method": "regression", "backbone": "joint", "pooling": "marker"},  # as the tutorial reads it
    TUTORIAL: {"method": "regression", "backbone": "joint", "pooling": "mean"},
    **{name: {"method": name, "backbone": "joint"} for name in TRAINED},
    **{f"{name}-restarted": {"method": name, "backbone": "restarted"} for name in ("pairwise", "pointer")},
    **{f"{name}-hierarchical": {"method": name, "backbone": "hierarchical"} for name in TRAINED},
}
HOW_TO_READ = [field.name for field in dataclasses.fields(SourceArguments) if field.name != "dataset"]
COSTS = ("minutes", "training_speed", "ordering_speed", "memory")
TIMED = 200
"""Documents whose ordering is timed."""


# --- runs -------------------------------------------------------------------------------------------------------------


def run_of(wanted: TrainArguments, folder: Path, documents: str, validation: Dataset) -> dict[str, Any]:
    """What a run came to, trained now unless it is there.

    Args:
        wanted: what it is told.
        folder: of the run.
        documents: a digest of all that it may read.
        validation: what is then ordered, and timed.
    """
    results = folder / "run.json"
    asked = {"arguments": dataclasses.asdict(wanted), "documents": documents}
    if results.exists():
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        if found["asked"] != asked:
            raise UserError(f"{folder}: holds a run with other arguments or documents; choose another --output_dir.")
        return found
    started = time.perf_counter()
    memory = _train(wanted, folder)
    minutes = (time.perf_counter() - started) / 60
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    speeds = [row["documents_per_second"] for row in logged if "documents_per_second" in row]
    model = SentenceOrderer.from_pretrained(folder / "model")
    found = {"asked": asked, "minutes": minutes, "memory": memory, "training_speed": float(np.median(speeds))}
    found |= {"validation": orders_of(model, validation), "ordering_speed": ordering_speed(model, validation)}
    if (folder / "predictions.jsonl").exists():
        found["test"] = [row.order for row in read_predictions(folder / "predictions.jsonl")]
    write_json(results, found)
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


def orders_of(model: SentenceOrderer, documents: Dataset) -> list[list[int]]:
    """The order of each document."""
    return [found.order for found in model.order(documents["sentences"][:])]


def ordering_speed(model: SentenceOrderer, documents: Dataset) -> float:
    """Documents a second, with what was run before as a warm-up."""
    texts = documents["sentences"][:TIMED]
    started = time.perf_counter()
    model.order(texts)
    return len(texts) / (time.perf_counter() - started)


def floors_of(encoder: str | None, splits: dict[str, Dataset], digest: str, cache: Path) -> dict[str, Any]:
    """The orders of the ways that learn nothing: name -> the one run of each."""
    if cache.exists():
        found: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8"))
        if found.pop("asked") == [encoder, digest]:
            return found
    floors = {}
    for name in UNTRAINED:
        model = SentenceOrderer.from_encoder(encoder, method=name)
        scored = {split: orders_of(model, splits[split]) for split in ("validation", "test") if split in splits}
        floors[name] = [scored]
    write_json(cache, {"asked": [encoder, digest], **floors})
    return floors


# --- tables -----------------------------------------------------------------------------------------------------------


def figures(run: dict[str, Any], split: str) -> dict[str, np.ndarray]:
    """Every figure of each document."""
    orders = run[split]
    return figures_of_documents([positions_of(order) for order in orders], [range(len(order)) for order in orders])


def taus(runs: Sequence[dict[str, Any]], split: str) -> np.ndarray:
    """Kendall's tau of each document, over the seeds."""
    return over_runs([figures(run, split)["kendall_tau"] for run in runs])


def row_of(name: str, runs: Sequence[dict[str, Any]], split: str) -> dict[str, Any]:
    """Means over the seeds; the interval is that of tau over documents, each averaged over the seeds first."""
    scores = [averages(figures(run, split)) for run in runs]
    interval = mean_interval(taus(runs, split))
    costs = [cost for cost in COSTS if cost in runs[0]]
    return (
        {"name": name, "seeds": len(runs), "documents": scores[0]["documents"]}
        | {figure: float(np.mean([score[figure] for score in scores])) for figure in MAIN_FIGURES}
        | {"low": interval.low, "high": interval.high, "by_seed": [score["kendall_tau"] for score in scores]}
        | {cost: float(np.mean([run[cost] for run in runs])) for cost in costs}
    )


def differences(runs: dict[str, list[dict[str, Any]]], split: str, to: str) -> dict[str, dict[str, float]]:
    """Of each contestant's tau to that of one, paired by document, each averaged over its seeds first."""
    means = {name: taus(of_name, split) for name, of_name in runs.items()}
    return {name: paired_difference(means[to], values)._asdict() for name, values in means.items() if name != to}


def markdown(rows: Sequence[dict[str, Any]], split: str, against: dict[str, dict[str, dict[str, float]]]) -> str:
    """The table as README shows it, best first."""
    head = ["method", "seeds", f"{split} tau (95 %)", "accuracy", "perfect match"]
    head += [f"tau less that of {to} (95 %), p" for to in against]
    head += ["minutes", "trained docs/s", "ordered docs/s", "GB"]
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
        cells += [f"{row[cost]:.1f}" if cost in row else "" for cost in COSTS]
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
    for name in ("method", "backbone", "pooling"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name}: is what the contestants differ in; name those that you want with --only.")
    loaded = load_splits(arguments.dataset, arguments.source_options).splits
    if "validation" not in loaded or arguments.eval_strategy == "no":
        raise UserError(f"--dataset {arguments.dataset}: there must be a validation split, and an evaluation on it.")
    limit = arguments.max_eval_documents
    splits = {split: texts if split == "train" else first_rows(texts, limit) for split, texts in loaded.items()}
    output: Path = ours.output_dir
    data = output / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split, documents in splits.items():
        write_json_lines(data / f"{split}.jsonl", documents.select_columns(["id", "genre", "sentences"]))
    written = b"".join((data / f"{split}.jsonl").read_bytes() for split in splits)
    digest = hashlib.sha256(written).hexdigest()

    def trained(name: str, seed: int, folder: Path, given: Sequence[str], **changes: Any) -> dict[str, Any]:
        dataset = ",".join(f"{split}={data / split}.jsonl" for split in given)
        changes |= {"seed": seed, "output_dir": str(folder), "overwrite_output_dir": True, "dataset": dataset}
        changes |= dict.fromkeys(HOW_TO_READ)
        wanted = dataclasses.replace(arguments, **{**CONTESTANTS[name], **changes})
        return run_of(wanted, folder, digest, splits["validation"])

    floors = floors_of(arguments.model_name_or_path, splits, digest, output / "floors.json")
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
        if finalists and TUTORIAL in ours.only and TUTORIAL not in finalists:
            finalists.append(TUTORIAL)  # which they have to beat
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

"""Train several ways to order sentences from the same encoder, on the same documents, for the same number of steps.

    python examples/benchmarks/compare_methods.py [--seeds 42 43 44] [--only pairwise pointer]
                                                  [--output_dir runs/compare] [ARGUMENTS OF TRAIN]

Prints one table and writes it as ``table.md`` and ``table.json`` into the output folder. A run that is there already
(same folder, finished) is not trained again, so an interrupted comparison goes on where it stopped, and figures of more
seeds or contestants join those that are there. The best step of each run is chosen on validation; test is looked at
once per run. To choose between settings without looking at test, give data without a test split
(``--dataset train=stories,validation=stories``): the table then has the validation figures alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sentorder.arguments import TrainArguments
from sentorder.command_line import parse_arguments, run_command
from sentorder.data.sources import load_splits
from sentorder.errors import UserError
from sentorder.files import write_json
from sentorder.metrics import kendall_tau, positions_of
from sentorder.model_card import library_versions
from sentorder.train import train

CONTESTANTS: dict[str, dict[str, str]] = {
    "regression-marker": {"method": "regression", "pooling": "marker"},  # the system of the tutorial
    "regression-mean": {"method": "regression", "pooling": "mean"},
    "pairwise": {"method": "pairwise"},
    "pointer": {"method": "pointer"},
}
FIGURES = ("kendall_tau", "accuracy", "perfect_match_ratio")


def run_of(arguments: TrainArguments, changes: dict[str, str], folder: Path, seed: int) -> dict[str, Any]:
    """The scores of one run, trained now unless it is there."""
    results = folder / "scores.json"
    wanted = dataclasses.replace(arguments, **changes, seed=seed, output_dir=str(folder), overwrite_output_dir=True)
    if results.exists():
        trained_with = yaml.safe_load((folder / "arguments.yaml").read_text(encoding="utf-8"))
        # What was left open (None) has been filled in by the run.
        asked = {name: value for name, value in dataclasses.asdict(wanted).items() if value is not None}
        if asked != {name: trained_with.get(name) for name in asked}:
            raise UserError(f"{folder}: holds a run with other arguments; choose another --output_dir.")
    else:
        started = time.perf_counter()
        run = train(wanted)
        minutes = (time.perf_counter() - started) / 60
        write_json(results, {"validation": run.validation, "test": run.test, "steps": run.steps, "minutes": minutes})
    scores: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    if scores["test"] is not None:
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        scores["taus"] = [kendall_tau(positions_of(row["order"]), range(len(row["order"]))) for row in rows]
    return scores


def row_of(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, each with the standard error of that mean: of test over documents, averaged over seeds first;
    of validation over seeds."""
    validation = [run["validation"]["kendall_tau"] for run in runs]
    row: dict[str, Any] = {
        "name": name,
        "seeds": len(runs),
        "minutes": float(np.mean([run["minutes"] for run in runs])),
        "validation": float(np.mean(validation)),
        "validation_error": float(np.std(validation, ddof=1) / len(runs) ** 0.5) if len(runs) > 1 else None,
    }
    if runs[0]["test"] is not None:
        taus = np.mean([run["taus"] for run in runs], axis=0)
        row |= {figure: float(np.mean([run["test"][figure] for run in runs])) for figure in FIGURES}
        row |= {"test_error": float(np.std(taus, ddof=1) / len(taus) ** 0.5), "documents": len(taus)}
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as README shows it."""
    tested = "kendall_tau" in rows[0]
    head = ["method", "seeds", "validation tau", *(["test tau", "accuracy", "perfect match"] if tested else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        error = row["validation_error"]
        cells = [row["name"], str(row["seeds"]), f"{row['validation']:.3f}" + (f" ± {error:.3f}" if error else "")]
        if tested:
            cells.append(f"{row['kendall_tau']:.3f} ± {row['test_error']:.3f}")
            cells += [f"{row['accuracy']:.3f}", f"{row['perfect_match_ratio']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--only", choices=CONTESTANTS, nargs="+", default=list(CONTESTANTS), metavar="METHOD")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/compare"))
    ours, rest = parser.parse_known_args()
    arguments, _ = parse_arguments(TrainArguments, rest, program="compare_methods.py", description="")
    if "validation" not in load_splits(arguments.dataset).splits or arguments.eval_strategy == "no":
        raise UserError(f"--dataset {arguments.dataset}: there must be a validation split, and an evaluation on it.")
    for name in ours.only:
        for seed in ours.seeds:
            run_of(arguments, CONTESTANTS[name], ours.output_dir / f"{name}-{seed}", seed)
    rows = []
    for name, changes in CONTESTANTS.items():  # all that there is, in the order of the table
        seeds = sorted(
            int(path.parent.name.rsplit("-", 1)[1]) for path in ours.output_dir.glob(f"{name}-*/scores.json")
        )
        runs = [run_of(arguments, changes, ours.output_dir / f"{name}-{seed}", seed) for seed in seeds]
        rows += [row_of(name, runs)] if runs else []
    table = markdown(rows)
    (ours.output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
    write_json(ours.output_dir / "table.json", {"rows": rows, "versions": library_versions()})
    print(f"\n{table}\n(± one standard error: of validation over seeds, of test over documents)")


if __name__ == "__main__":
    run_command(main)

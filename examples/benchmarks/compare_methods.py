"""Train several ways to order sentences from the same encoder, on the same documents, for the same number of steps.

    python examples/benchmarks/compare_methods.py [--seeds 42 43 44] [--output_dir runs/compare] [ARGUMENTS OF TRAIN]

Prints one table and writes it as ``table.md`` and ``table.json`` into the output folder. A run that is there already
(same folder, finished) is not trained again, so an interrupted comparison goes on where it stopped. The best step of
each run is chosen on validation; test is looked at once per run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sentorder.arguments import TrainArguments
from sentorder.checkpoint import write_json
from sentorder.command_line import parse_arguments, run_command
from sentorder.data.sources import load_split
from sentorder.errors import UserError
from sentorder.metrics import kendall_tau, positions_of
from sentorder.model_card import library_versions
from sentorder.train import train

CONTESTANTS: dict[str, dict[str, str]] = {
    "regression, read at the marker (the tutorial's system)": {"method": "regression", "pooling": "marker"},
    "regression, mean of the tokens": {"method": "regression", "pooling": "mean"},
    "pairwise, marker + mean (the default)": {"method": "pairwise", "pooling": "both"},
}


def run_of(arguments: TrainArguments, changes: dict[str, str], folder: Path, seed: int) -> dict[str, Any]:
    """The test scores of one run, trained now unless it is there."""
    results = folder / "test_results.json"
    wanted = dataclasses.replace(arguments, **changes, seed=seed, output_dir=str(folder), overwrite_output_dir=True)
    if results.exists():
        trained_with = yaml.safe_load((folder / "arguments.yaml").read_text(encoding="utf-8"))
        # What was left open (None) has been filled in by the run.
        asked = {name: value for name, value in dataclasses.asdict(wanted).items() if value is not None}
        if asked != {name: trained_with.get(name) for name in asked}:
            raise UserError(f"{folder}: holds a run with other arguments; choose another --output_dir.")
    else:
        train(wanted)
    scores: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    scores["taus"] = [kendall_tau(positions_of(row["order"]), range(len(row["order"]))) for row in rows]
    return scores


def row_of(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds. The standard error is that of the mean tau over documents, averaged over seeds first."""
    per_document = np.mean([run["taus"] for run in runs], axis=0)
    figures = {
        metric: float(np.mean([run[metric] for run in runs]))
        for metric in ("kendall_tau", "accuracy", "perfect_match_ratio")
    }
    return {
        "method": name,
        **figures,
        "standard_error": float(np.std(per_document, ddof=1) / len(per_document) ** 0.5),
        "seeds": len(runs),
        "documents": len(per_document),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as README shows it."""
    lines = ["| method | Kendall's tau | accuracy | perfect match |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['method']} | {row['kendall_tau']:.3f} ± {row['standard_error']:.3f} | {row['accuracy']:.3f} | "
            f"{row['perfect_match_ratio']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/compare"))
    ours, rest = parser.parse_known_args()
    arguments, _ = parse_arguments(TrainArguments, rest, program="compare_methods.py", description="")
    load_split(arguments.dataset, "test")  # without one there is nothing to compare on
    rows = []
    for place, (name, changes) in enumerate(CONTESTANTS.items(), start=1):
        runs = [run_of(arguments, changes, ours.output_dir / f"{place}-{seed}", seed) for seed in ours.seeds]
        rows.append(row_of(name, runs))
    table = markdown(rows)
    (ours.output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
    write_json(ours.output_dir / "table.json", {"rows": rows, "versions": library_versions()})
    print(f"\n{table}\n(± one standard error over the test documents; {len(ours.seeds)} seed(s))")


if __name__ == "__main__":
    run_command(main)

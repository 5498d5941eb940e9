"""What more passes of the encoder buy: tau and speed of a trained model for several numbers of them.

    python examples/benchmarks/compare_passes.py MODEL [MODEL ...] [--dataset stories] [--split validation]
                                                 [--passes 1 2 4 8 1+1 4+1] [--output FILE.json]

``4+1`` averages over four orders of the input and then feeds the best order in once more. Several models (seeds of one
method) are averaged per document. Prints a Markdown table: tau with its interval, the difference to the first row,
paired by document, and documents a second. Choose on validation; say ``--split test`` for the one that was chosen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from sentorder import SentenceOrderer, UserError
from sentorder.command_line import run_command
from sentorder.data.sources import load_split
from sentorder.files import write_json
from sentorder.metrics import kendall_tau, positions_of
from sentorder.model_card import library_versions
from sentorder.significance import mean_interval, over_runs, paired_difference


def passes(text: str) -> tuple[int, int]:
    """``4+1`` as (permutations, refeeds)."""
    permutations, _, refeeds = text.partition("+")
    if not permutations.isdigit() or (refeeds and not refeeds.isdigit()) or int(permutations) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of permutations, as 4, or with refeeds, as 4+1")
    return int(permutations), int(refeeds or 0)


def taus_of(model: SentenceOrderer, texts: list[list[str]]) -> tuple[np.ndarray, float]:
    """Kendall's tau of each document, and documents a second."""
    started = time.perf_counter()
    found = model.order(texts)
    speed = len(texts) / (time.perf_counter() - started)
    return np.asarray([kendall_tau(positions_of(best.order), range(len(best.order))) for best in found]), speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model/ folders of training runs")
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    parser.add_argument("--max_documents", type=int, default=None)
    parser.add_argument(
        "--passes", type=passes, nargs="+", default=[(1, 0), (2, 0), (4, 0), (8, 0), (1, 1), (4, 1)], metavar="P[+R]"
    )
    parser.add_argument("--output", type=Path, default=None, metavar="FILE.json")
    given = parser.parse_args()
    if given.max_documents is not None and given.max_documents < 2:
        raise UserError("--max_documents: an interval needs two documents at least.")
    documents, _ = load_split(given.dataset, given.split)
    texts = documents["sentences"][: given.max_documents]
    models = [SentenceOrderer.from_pretrained(path) for path in given.models]
    for model in models:
        for permutations, refeeds in given.passes:  # a backbone may refuse more passes: say so before any work
            model.set_decoding(num_permutations=permutations, num_refeeds=refeeds)
        model.order(texts[:8])  # the first pass of a process is slow
    rows: list[dict[str, Any]] = []
    first: np.ndarray | None = None
    print(f"| orders of the input | refeeds | {given.split} tau (95 %) | less the first row (95 %), p | docs/s |")
    print("|---" * 5 + "|")
    for permutations, refeeds in given.passes:
        found = []
        for model in models:
            model.set_decoding(num_permutations=permutations, num_refeeds=refeeds)
            found.append(taus_of(model, texts))
        taus, speed = over_runs([taus for taus, _ in found]), float(np.median([speed for _, speed in found]))
        low, high = mean_interval(taus)
        row = {"permutations": permutations, "refeeds": refeeds, "kendall_tau": float(taus.mean()), "low": low}
        row |= {"high": high, "documents": len(taus), "models": len(models), "documents_per_second": speed}
        gap = ""
        if first is not None:
            less = paired_difference(first, taus)
            row["difference"] = less._asdict()
            gap = f"{less.difference:+.3f} ({less.low:+.3f} to {less.high:+.3f}), {less.p_value:.4f}"
        first = taus if first is None else first
        rows.append(row)
        print(f"| {permutations} | {refeeds} | {taus.mean():.3f} ({low:.3f} to {high:.3f}) | {gap} | {speed:.1f} |")
    if given.output is not None:
        write_json(given.output, {"rows": rows, "models": given.models, "versions": library_versions()})


if __name__ == "__main__":
    run_command(main)

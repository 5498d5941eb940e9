"""Measure how fast orders are found from scores: the exact search up to 14 sentences, the local search beyond.

    python examples/benchmarks/decoding_speed.py [--output runs/decoding_speed.json]

On one core, for random scores. Prints a Markdown table: documents per second, and milliseconds per document, with pair
scores alone and with all three terms (pairs, positions, neighbours). Each number is the median of several repetitions
over a batch of documents of one length, which is smaller for longer ones. Run it on a machine that does nothing else:
the times are those of the clock.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from contest import machine

from sentorder.command_line import run_command
from sentorder.errors import UserError
from sentorder.files import write_json
from sentorder.model_card import library_versions
from sentorder.order_search import EXACT_SENTENCES, best_orders

BATCHES = {5: 20_000, 8: 2_000, 10: 400, 12: 50, 14: 5, 20: 20, 50: 5, 100: 2}
"""Sentences, and the documents of a batch."""


def seconds_per_document(n: int, documents: int, repetitions: int, *, all_terms: bool) -> float:
    """The median over repetitions; what is made once (the subsets of n) is made before."""
    random = np.random.default_rng(n)
    names = ("pair_scores", "position_scores", "adjacency_scores") if all_terms else ("pair_scores",)
    terms = {name: random.normal(size=(documents, n, n)) for name in names}
    best_orders(**{name: term[:1] for name, term in terms.items()})
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter()
        best_orders(**terms)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) / documents


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    head = ["sentences", "search", "documents/s, pairs", "ms/document, pairs", "documents/s, all", "ms/document, all"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [str(row["sentences"]), row["search"]]
        for seconds in (row["seconds_pairs"], row["seconds_all_terms"]):
            cells += [f"{1 / seconds:,.0f}", f"{1000 * seconds:.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, nargs="+", default=list(BATCHES), choices=BATCHES, metavar="N")
    parser.add_argument("--documents", type=int, help="In each batch (without it: fewer, the longer they are).")
    parser.add_argument("--repetitions", type=int, default=7, help="Of each measurement (default: 7).")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON of the figures, machine and versions.")
    options = parser.parse_args()
    if options.repetitions < 1 or (options.documents is not None and options.documents < 1):
        raise UserError("--documents and --repetitions must be at least 1.")
    rows = []
    for n in options.sentences:
        documents = options.documents or BATCHES[n]
        pairs, everything = (
            seconds_per_document(n, documents, options.repetitions, all_terms=all_terms) for all_terms in (False, True)
        )
        search = "exact" if n <= EXACT_SENTENCES else "local"
        row = {"sentences": n, "search": search, "documents": documents}
        rows.append(row | {"seconds_pairs": pairs, "seconds_all_terms": everything})
    print(markdown(rows))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        values = {
            "rows": rows,
            "repetitions": options.repetitions,
            "machine": machine(threads=1),
            "versions": library_versions() | {"numpy": np.__version__},
        }
        write_json(options.output, values)


if __name__ == "__main__":
    run_command(main)

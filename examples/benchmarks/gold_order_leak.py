"""Show that the published evaluation of topological sort leaks the gold order: it scores well on coin flips.

    python examples/benchmarks/gold_order_leak.py [--output_dir runs/leak]

Each pair of sentences is decided by itself, rightly with probability p; at p = 0.5 nothing is known, and an honest
evaluation gives a tau of 0. B-TSort's decoder (Prabhumoye and others, 2020; STaCK has it too) visits the sentences in
the order of their numbers and deletes the edge that closes a cycle. Its published evaluation numbers the sentences by
their gold positions, so cycles are broken in favour of the gold order. Here the same decoder is run so, and with
numbers drawn by chance; beside it Copeland's and Borda's rule and the exact search, all three with numbers by chance.
(Decisions have no strengths, so Borda's rule is Copeland's but for the way that ties fall.)

Prints a Markdown table of Kendall's tau / positional accuracy / perfect match ratio in percent, means over documents;
``--output_dir`` gets it as ``table.md`` and ``table.json``, and a picture, ``tau.png``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sentorder.command_line import run_command
from sentorder.errors import UserError
from sentorder.files import write_json
from sentorder.model_card import library_versions
from sentorder.order_search import best_orders
from sentorder.pair_rules import borda_orders, copeland_orders, topological_orders

PUBLISHED = "topological, numbered by gold position"
BY_CHANCE = "topological, numbered by chance"
METHODS = {
    PUBLISHED: topological_orders,
    BY_CHANCE: topological_orders,
    "Copeland": copeland_orders,
    "Borda": borda_orders,
    "exact": lambda logits: best_orders(logits).orders[:, 0],
}
STYLES: dict[str, dict[str, Any]] = {
    PUBLISHED: {"color": "tab:red", "linewidth": 2.5},
    BY_CHANCE: {"color": "tab:orange"},
    "Copeland": {"color": "0.6", "linewidth": 3.5},  # Borda's line lies upon it
    "Borda": {"color": "tab:green", "linestyle": "--"},
    "exact": {"color": "tab:blue"},
}


def coin_flips(documents: int, n: int, p: float, random: np.random.Generator) -> np.ndarray:
    """(documents, n, n) decisions, 1 for row before column and else -1, right with probability p; slot i is the i-th
    sentence."""
    right = np.where(random.random((documents, n, n)) < p, 1.0, -1.0)
    upper = np.triu(right, 1)
    return upper - upper.transpose(0, 2, 1)


def figures_of(orders: np.ndarray) -> dict[str, float]:
    """Mean tau, accuracy and perfect match ratio of (documents, n) gold positions in predicted order."""
    n = orders.shape[1]
    first, second = np.triu_indices(n, 1)
    in_order = orders[:, first] < orders[:, second]
    right = orders == np.arange(n)
    return {
        "kendall_tau": float(2 * in_order.mean() - 1),
        "accuracy": float(right.mean()),
        "perfect_match_ratio": float(right.all(axis=1).mean()),
    }


def rows_of(documents: int, counts: list[int], accuracies: list[float], seed: int) -> list[dict[str, Any]]:
    """For each length and accuracy of the decisions, the figures of each method on the same documents."""
    rows = []
    for n in counts:
        for p in accuracies:
            random = np.random.default_rng(
                [seed, n, round(1000 * p)]
            )  # a row is the same whatever others are asked for
            decisions = coin_flips(documents, n, p, random)
            labels = random.permuted(np.tile(np.arange(n), (documents, 1)), axis=1)  # the sentence in each slot
            each = np.arange(documents)[:, None, None]
            by_chance = decisions[each, labels[:, :, None], labels[:, None, :]]
            figures = {}
            for name, method in METHODS.items():
                if name == PUBLISHED:
                    orders = method(decisions)
                else:
                    orders = np.take_along_axis(labels, method(by_chance), axis=1)
                figures[name] = figures_of(orders)
            rows.append({"n": n, "p": p, "documents": documents, "methods": figures})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table; a cell is tau / accuracy / perfect match ratio in percent."""
    head = ["n", "p", *METHODS]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [str(row["n"]), f"{row['p']:g}"]
        for figures in row["methods"].values():
            tau, accuracy, perfect = figures.values()
            cells.append(f"{tau:.3f} / {accuracy:.3f} / {100 * perfect:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Tau against the accuracy of the decisions, one panel per length.

    Raises:
        UserError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('Pictures need matplotlib: pip install "sentorder[plot]".') from None
    counts = sorted({row["n"] for row in rows})
    figure = Figure(figsize=(3.2 * len(counts) + 1, 3.8), layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for panel, n in zip(panels, counts, strict=True):
        of_length = sorted((row for row in rows if row["n"] == n), key=lambda row: row["p"])
        for name in METHODS:
            taus = [row["methods"][name]["kendall_tau"] for row in of_length]
            panel.plot([row["p"] for row in of_length], taus, marker=".", label=name, **STYLES[name])
        panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        panel.set(title=f"{n} sentences", xlabel="share of pairs decided rightly")
    panels[0].set_ylabel("Kendall's tau")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3000, help="In each row (default: 3000).")
    parser.add_argument("--sentences", type=int, nargs="+", default=[5, 8, 12], metavar="N", help="Default: 5 8 12.")
    parser.add_argument(
        *("--accuracies", "-p"),
        type=float,
        nargs="+",
        default=[0.5, 0.6, 0.7, 0.8, 0.9],
        metavar="P",
        help="Probabilities of a right decision (default: 0.5 0.6 0.7 0.8 0.9).",
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the decisions and numbers (default: 0).")
    parser.add_argument("--output_dir", type=Path, help="For table.md, table.json and tau.png (without it: none).")
    options = parser.parse_args()
    if options.documents < 1 or min(options.sentences) < 2 or not all(0 <= p <= 1 for p in options.accuracies):
        raise UserError("--documents must be at least 1, --sentences at least 2, --accuracies between 0 and 1.")
    if options.seed < 0:
        raise UserError("--seed must be at least 0.")
    rows = rows_of(options.documents, options.sentences, options.accuracies, options.seed)
    table = markdown(rows)
    print(f"{table}\n(tau / accuracy / perfect match ratio, means over {options.documents} documents)")
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        (options.output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
        values = {"seed": options.seed, "rows": rows, "versions": library_versions() | {"numpy": np.__version__}}
        write_json(options.output_dir / "table.json", values)
        draw(rows, options.output_dir / "tau.png")


if __name__ == "__main__":
    run_command(main)

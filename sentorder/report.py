"""Draw a run: ``python -m sentorder.report runs/1`` writes ``report.png`` into its folder."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .command_line import run_command
from .errors import UserError
from .metrics import positions_of


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('Pictures need matplotlib: pip install "sentorder[plot]".') from None
    return Figure


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; give the folder of a finished run.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def position_counts(orders: list[list[int]]) -> np.ndarray:
    """How often a sentence of each true position came out at each predicted one.

    Args:
        orders: sentence indices in predicted order, of documents of n sentences each.

    Returns:
        (n, n): the share, in each row (true position) of each column (predicted position); rows sum to 1.
    """
    n = len(orders[0])
    counts = np.zeros((n, n))
    for order in orders:
        counts[np.arange(n), positions_of(order)] += 1
    return counts / len(orders)


def draw_run(folder: Path) -> Any:
    """A figure: how training went, and where the test sentences came out.

    Args:
        folder: of a finished run.

    Raises:
        UserError: if matplotlib or the run's files are missing.
    """
    figure_class = _figure_class()
    rows = _read_lines(folder / "metrics.jsonl")
    figure = figure_class(figsize=(9.6, 3.8), dpi=150, layout="constrained")
    curves, heat = figure.subplots(1, 2, width_ratios=[1.5, 1])

    losses, taus, tests = (
        [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        for name in ("loss", "eval_kendall_tau", "test_kendall_tau")
    )
    if not losses or not tests:
        raise UserError(f"{folder}: is not the folder of a finished run with a test split.")
    curves.plot(*zip(*losses, strict=True), color="0.6", linewidth=1.2, label="training loss")
    curves.set(xlabel="optimizer step", ylabel="training loss", title="Training")
    curves.spines[["top"]].set_visible(False)
    tau_axis = curves.twinx()
    if taus:
        tau_axis.plot(*zip(*taus, strict=True), color="tab:blue", marker="o", label="tau, validation")
    tau_axis.plot(*zip(*tests, strict=True), color="tab:orange", marker="D", linestyle="", label="tau, test")
    tau_axis.set_ylabel("Kendall's tau")
    tau_axis.set_ylim(min(0.0, *(tau for _, tau in taus + tests)), 1)
    tau_axis.spines[["top"]].set_visible(False)
    handles = [line for axis in (curves, tau_axis) for line in axis.get_lines()]
    curves.legend(handles=handles, loc="upper center", ncols=3, frameon=False, fontsize=8)
    curves.set_ylim(0, 1.2 * max(loss for _, loss in losses))

    orders = [row["order"] for row in _read_lines(folder / "predictions.jsonl")]
    n, documents = Counter(len(order) for order in orders).most_common(1)[0]
    shares = position_counts([order for order in orders if len(order) == n])
    heat.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true in range(n):
        for predicted in range(n):
            share = shares[true, predicted]
            heat.text(predicted, true, f"{share:.0%}", ha="center", va="center", fontsize=8,
                      color="white" if share > 0.5 else "black")  # fmt: skip
    ticks = range(n)
    heat.set(
        xticks=ticks, yticks=ticks, xticklabels=[i + 1 for i in ticks], yticklabels=[i + 1 for i in ticks],
        xlabel="position the model gives", ylabel="true position",
        title=f"Test: {n} sentences ({documents} of {len(orders)} texts)",
    )  # fmt: skip
    return figure


def main() -> None:
    """The command line program."""
    parser = argparse.ArgumentParser(prog="python -m sentorder.report", description="Draw a finished run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="The folder of a run, such as runs/1.")
    folder = parser.parse_args().run
    draw_run(folder).savefig(folder / "report.png")
    print(folder / "report.png")


if __name__ == "__main__":
    run_command(main)

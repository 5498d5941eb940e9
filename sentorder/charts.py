"""Pictures of runs, as matplotlib figures: plain values in, a figure out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np

from .errors import UserError
from .metrics import positions_of
from .significance import mean_interval

COLOURS = ("#1f5f99", "#d1701c", "#3a8a5f", "#8d4a93", "#7a7a7a", "#b03a48")
"""Of the runs, in their order; told apart without green and red."""
MARKERS = "osD^vP"
BINS = 8
"""Of the confidence, with as many documents in each; fewer where there would be too few in one."""
FEW = 5
"""Groups of fewer documents have no interval that says anything."""


class Learning(NamedTuple):
    """What a run logged: points (step, value)."""

    name: str
    losses: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    test: list[tuple[int, float]]
    """One point, or none."""


class Group(NamedTuple):
    """The taus of the documents of one length or genre."""

    label: str
    taus: np.ndarray


def new_figure(width: float, height: float) -> Any:
    """An empty figure, inches.

    Raises:
        UserError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('Pictures need matplotlib: pip install "sentorder[plot]".') from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def draw_overview(learning: Learning, orders: Sequence[Sequence[int]]) -> Any:
    """One run at a glance: how training went, and where the sentences of the test documents came out.

    Args:
        learning: of the run.
        orders: of the test documents, sentence indices in predicted order.
    """
    figure = new_figure(9.6, 3.8)
    curves, heat = figure.subplots(1, 2, width_ratios=[1.5, 1])
    curves.plot(*zip(*learning.losses, strict=True), color="0.6", linewidth=1.2, label="training loss")
    curves.set(xlabel="optimizer step", ylabel="training loss", title="Training")
    curves.spines[["top"]].set_visible(False)
    tau_axis = curves.twinx()
    taus = [*learning.validation, *learning.test]
    for points, label, style in (
        (learning.validation, "tau, validation", {"color": "tab:blue", "marker": "o"}),
        (learning.test, "tau, test", {"color": "tab:orange", "marker": "D", "linestyle": ""}),
    ):
        if points:
            tau_axis.plot(*zip(*points, strict=True), label=label, **style)
    tau_axis.set_ylabel("Kendall's tau")
    tau_axis.set_ylim(min(0.0, *(tau for _, tau in taus), 0.0), 1)
    tau_axis.spines[["top"]].set_visible(False)
    handles = [line for axis in (curves, tau_axis) for line in axis.get_lines()]
    curves.legend(handles=handles, loc="upper center", ncols=3, frameon=False, fontsize=8)
    curves.set_ylim(0, 1.2 * max(loss for _, loss in learning.losses))
    _heat_map(heat, orders)
    return figure


def draw_learning(runs: Sequence[Learning]) -> Any:
    """Training loss and validation tau of several runs, step by step."""
    figure = new_figure(9.6, 3.8)
    losses, taus = figure.subplots(1, 2)
    lines = []
    for number, run in enumerate(runs):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        lines += losses.plot(*zip(*run.losses, strict=True), color=colour, linewidth=1.2, label=run.name)
        if run.validation:
            taus.plot(*zip(*run.validation, strict=True), color=colour, marker=marker)
        if run.test:
            taus.plot(*zip(*run.test, strict=True), color=colour, marker="*", markersize=11, linestyle="",
                      markeredgecolor="white")  # fmt: skip
    highest, last = (
        max(value) for value in zip(*((loss, step) for run in runs for step, loss in run.losses), strict=True)
    )
    losses.set(title="Training loss", ylim=(0, 1.05 * highest))
    taus.set(title="Kendall's tau: validation (lines) and test (star)")
    if not any(run.validation or run.test for run in runs):
        taus.text(0.5, 0.5, "not evaluated so far", transform=taus.transAxes, ha="center", color="0.5")
        taus.set_yticks([])
    for axis in (losses, taus):
        axis.set(xlabel="optimizer step", xlim=(0, 1.03 * last))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92")
    if len(runs) > 1:
        figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def draw_groups(title: str, runs: Mapping[str, Sequence[Group]]) -> Any:
    """Tau of each group of documents with its 95 % interval, the runs side by side.

    Args:
        title: what the groups are.
        runs: by the name of each run, the same groups in the same order.
    """
    groups = next(iter(runs.values()))
    figure = new_figure(max(4.8, 1.2 + 0.5 * len(groups) * (0.6 + 0.4 * len(runs))), 3.6)
    axis = figure.subplots()
    places = np.arange(len(groups))
    for number, (name, own) in enumerate(runs.items()):
        shift = (number - (len(runs) - 1) / 2) * 0.7 / len(runs)
        means = np.array([group.taus.mean() for group in own])
        ends = np.array([mean_interval(group.taus) if len(group.taus) >= FEW else (np.nan, np.nan) for group in own])
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axis.errorbar(
            places + shift, means, yerr=np.abs(ends.T - means), fmt=marker, color=colour, capsize=3, label=name
        )
    axis.axhline(0, color="0.8", linewidth=1, zorder=0)
    labels = [f"{group.label}\n({len(group.taus)})" for group in groups]
    axis.set(
        title=title,
        ylabel="Kendall's tau (95 %)",
        xticks=places,
        xticklabels=labels,
        ylim=(None, 1),
    )
    axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axis.legend(frameon=False, fontsize=8)
    return figure


def draw_positions(runs: Mapping[str, Sequence[Sequence[int]]]) -> Any:
    """For each run, where the sentences of each true position came out."""
    figure = new_figure(4.2 * len(runs), 4.0)
    axes = np.atleast_1d(figure.subplots(1, len(runs)))
    for axis, (name, orders) in zip(axes, runs.items(), strict=True):
        _heat_map(axis, orders, name if len(runs) > 1 else "")
    return figure


def draw_reliability(runs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """Whether confidence means something: the tau of documents of about the same confidence.

    Args:
        runs: by name, confidence and tau of each document.
    """
    figure = new_figure(4.8, 4.2)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    lowest = 0.0
    for number, (name, (confidences, taus)) in enumerate(runs.items()):
        bins = max(1, min(BINS, len(taus) // FEW))
        parts = np.array_split(np.argsort(confidences, kind="stable"), bins)
        means = np.array([taus[part].mean() for part in parts])
        ends = np.array([mean_interval(taus[part]) for part in parts]).reshape(-1, 2)
        axis.errorbar(
            [confidences[part].mean() for part in parts],
            means,
            yerr=np.abs(ends.T - means),
            fmt=f"{MARKERS[number % len(MARKERS)]}-",
            color=COLOURS[number % len(COLOURS)],
            capsize=3,
            label=name,
        )
        lowest = min([lowest, *ends[:, 0]])
    axis.set(title="Reliability of the confidence", xlabel="confidence", ylabel="Kendall's tau (95 %)")
    axis.set(xlim=(0, 1), ylim=(lowest, 1))
    axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axis.legend(frameon=False, fontsize=8)
    return figure


def draw_precedence(sentences: Sequence[str], probabilities: np.ndarray) -> Any:
    """What a model says about each two sentences of one document.

    Args:
        sentences: in the predicted order, so that a model that follows its own words is purple above the diagonal.
        probabilities: (n, n) that the sentence of the row stands before that of the column.
    """
    n = len(sentences)
    figure = new_figure(5.2 + 0.42 * n, 1.4 + 0.42 * n)
    axis = figure.subplots()
    shown = np.ma.masked_array(probabilities, mask=np.eye(n, dtype=bool))
    picture = axis.imshow(shown, cmap="PuOr", vmin=0, vmax=1)
    for row in range(n):
        for column in range(n):
            if row != column and n <= 20:
                share = probabilities[row, column]
                axis.text(column, row, f"{share:.0%}".rstrip("%"), ha="center", va="center", fontsize=8,
                          color="white" if abs(share - 0.5) > 0.35 else "black")  # fmt: skip
    numbers = [str(place + 1) for place in range(n)]
    names = [
        f"{shorten(sentence, 52, placeholder=' ...')}  {number}"
        for sentence, number in zip(sentences, numbers, strict=True)
    ]
    axis.set(xticks=range(n), yticks=range(n), xticklabels=numbers, yticklabels=names)
    axis.set_title(
        "Probability (%) that the sentence of the row stands before that of the column", fontsize=9, loc="right"
    )
    axis.tick_params(length=0)
    figure.colorbar(picture, ax=axis, shrink=0.8)
    return figure


def position_counts(orders: Sequence[Sequence[int]]) -> np.ndarray:
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


def _heat_map(axis: Any, orders: Sequence[Sequence[int]], name: str = "") -> None:
    """Of the documents with the most frequent number of sentences."""
    n, documents = Counter(len(order) for order in orders).most_common(1)[0]
    title = f"{documents} of {len(orders)} texts, {n} sentences"
    shares = position_counts([order for order in orders if len(order) == n])
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 12:
        for true in range(n):
            for predicted in range(n):
                share = shares[true, predicted]
                axis.text(predicted, true, f"{share:.0%}", ha="center", va="center", fontsize=8 if n <= 8 else 6,
                          color="white" if share > 0.5 else "black")  # fmt: skip
    ticks = range(0, n, -(-n // 20))
    axis.set(
        xticks=ticks, yticks=ticks, xticklabels=[i + 1 for i in ticks], yticklabels=[i + 1 for i in ticks],
        xlabel="position the model gives", ylabel="true position",
        title=f"{name}\n{title}" if name else f"Test: {title}",
    )  # fmt: skip

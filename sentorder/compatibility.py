"""What the evaluation code of other repositories prints for the same predictions, and where theirs is off.

Tables in papers come from these programs, which average differently; to stand beside such a table a figure must be
computed as there. The code here is our own, after their definitions; ``tests/test_compatibility.py`` holds it to
numbers that the originals gave:

- B-TSort (Prabhumoye et al., 2020): shrimai/Topological-Sort-for-Sentence-Ordering, ``topological_sort.py``
- BERSON (Cui et al., 2020): hwxcby/BERSON, ``examples_original/run_glue.py``, ``cal_result``
- RE-BART (Basu Roy Chowdhury et al., 2021): fabrahman/ReBART, ``eval/evaluation.py``
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from .metrics import accuracy, kendall_tau, longest_common_subsequence, perfect_match, positions_of, within

Order = Sequence[int]


class Figure(NamedTuple):
    """One line of what their program prints."""

    name: str
    """As it is printed there."""
    value: float | None
    """As it is printed there, but with all digits; None where it cannot be had from these orders."""
    note: str
    """What it is, and where it is off."""


def _positions(order: Order) -> tuple[np.ndarray, np.ndarray]:
    return positions_of(order), np.arange(len(order))


def _ratio(values: Iterable[float], count: int) -> float | None:
    return math.fsum(values) / count if count else None


def btsort(orders: Sequence[Order]) -> list[Figure]:
    """What B-TSort's ``Stats.print_stats`` prints, but for what is not a function of the orders.

    Args:
        orders: of each document, indices into its sentences in gold order, a permutation. Documents of one sentence
            have no pairs, so B-TSort's files do not hold them: they are left out.
    """
    scored = [_positions(order) for order in orders if len(order) > 1]
    lengths = [len(gold) for _, gold in scored]

    def percent_of_sentences(shares: Sequence[float]) -> float | None:
        return _ratio((100 * share * n for share, n in zip(shares, lengths, strict=True)), sum(lengths))

    micro = "Percent of all sentences (micro): long documents weigh more; compare accuracy_micro, not accuracy."
    figures = [
        Figure(
            "Perfect Match",
            _ratio([100 * perfect_match(*pair) for pair in scored], len(scored)),
            "Percent of documents. B-TSort numbers sentences by their true position and breaks cycles in favour of low "
            "numbers, so that the truth leaks into all its published figures; into these it does not.",
        ),
        Figure("Sentence Accuracy", percent_of_sentences([accuracy(*pair) for pair in scored]), micro),
        Figure(
            "Rouge-S",
            None,
            "No function of the order: the percent of pairs that the pair classifier has right, after the edges that "
            "closed a cycle were removed. Our skip_bigram is that of the order itself.",
        ),
        Figure("LCS", percent_of_sentences([longest_common_subsequence(*pair) for pair in scored]), micro),
        Figure(
            "Kendall Tau Ratio",
            _ratio([kendall_tau(*pair) for pair in scored], len(scored)),
            "Mean over documents. A document of one sentence would divide by zero; it is left out here.",
        ),
    ]
    for window in (1, 2, 3):
        share = percent_of_sentences([within(*pair, distance=window) for pair in scored])
        figures.append(Figure(f"Min Dist Metric for window {window}", share, micro))
    return figures


def berson(orders: Sequence[Order]) -> list[Figure]:
    """What BERSON's ``cal_result`` returns and ``evaluate`` writes to ``eval_results.txt``.

    Args:
        orders: of each document, indices into its sentences in gold order, a permutation.
    """
    single = sum(len(order) == 1 for order in orders)
    note = f"Mean over documents; one of a single sentence counts as 1 ({single} of {len(orders)} here)."
    pairs = [_positions(order) for order in orders]
    taus = [kendall_tau(*pair) if len(pair[0]) > 1 else 1.0 for pair in pairs]
    return [
        Figure("acc_dev", _ratio([accuracy(*pair) for pair in pairs], len(pairs)), note),
        Figure("pmr_dev", _ratio([perfect_match(*pair) for pair in pairs], len(pairs)), note),
        Figure("taus_dev", _ratio(taus, len(taus)), note),
    ]


def rebart(orders: Sequence[Order], lengths: Sequence[int] | None = None) -> list[Figure]:
    """What RE-BART's ``evaluate`` prints, also for what a model that writes text may give instead of an order.

    Args:
        orders: of each document the sentence indices that were written, by their number in gold order: with gaps, twice
            or unknown (not in 0..n-1) as the model has it, or none at all.
        lengths: how many sentences each document has; without it the orders are permutations, and say so themselves.
    """
    lengths = [len(order) for order in orders] if lengths is None else lengths
    documents, sentences = len(orders), sum(lengths)
    right = matches = common = not_processed = 0
    taus, rouges = [], []
    for order, n in zip(orders, lengths, strict=True):
        if len(order) == 0:
            not_processed += 1
            continue
        known = [index for index in order if 0 <= index < n]
        right += sum(place == index for place, index in enumerate(order[:n]))
        matches += list(order) == list(range(n))
        # The common subsequence with 0, 1, 2, ... is the longest one that increases, unknown indices left out.
        common += round(longest_common_subsequence(known, range(len(known))) * len(known)) if known else 0
        rouges.append(_rebart_rouge_s(order, n))
        tau = _rebart_tau(order, n)
        not_processed += math.isnan(tau)
        taus.append(0.0 if math.isnan(tau) else tau)
    malformed = "Malformed output can be better than none: 2 0 for a document in which 2 0 3 4 1 is right has tau 1."
    micro = "Share of all sentences (micro): long documents weigh more; compare accuracy_micro, not accuracy."
    macro = "Mean over documents; one of a single sentence counts as 1 where it is right."

    return [
        Figure(
            "sample(s) were not processed",
            float(not_processed),
            "Empty outputs, which count 0 in every figure, and those of which tau is not defined, which count 0 in "
            "tau. Orders that are permutations have neither.",
        ),
        Figure("Accuracy", _ratio([right], sentences), micro),
        Figure("PMR", _ratio([matches], documents), macro),
        Figure(
            "Kendall's Tau",
            _ratio(taus, documents),
            f"{macro} It is taken over what was written, and an unknown sentence stands for the first one. {malformed}",
        ),
        Figure("LCS", _ratio([common], sentences), micro),
        Figure(
            "Rouge-S",
            _ratio(rouges, documents),
            f"{macro} An output of one sentence is 1 if it is the first one, however many there should be.",
        ),
    ]


def _rebart_tau(order: Order, n: int) -> float:
    if n == 1 and order[0] == 0:
        return 1.0
    places = [index if 0 <= index < n else 0 for index in order]
    return float(stats.kendalltau(places, range(len(places))).statistic) if len(places) > 1 else math.nan


def _rebart_rouge_s(order: Order, n: int) -> float:
    if n == 1 or len(order) == 1:
        return float(order[0] == 0)
    pairs = {(a, b) for place, a in enumerate(order) for b in order[place + 1 :] if 0 <= a < b < n}
    return len(pairs) / (n * (n - 1) / 2)


REPOSITORIES: Mapping[str, Callable[[Sequence[Order]], list[Figure]]] = {
    "btsort": btsort,
    "berson": berson,
    "rebart": rebart,
}
"""By the value of ``--as``."""

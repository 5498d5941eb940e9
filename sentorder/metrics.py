"""How good a predicted order is: pure functions on (predicted positions, gold positions).

``positions[i]`` is the predicted and ``gold[i]`` the true position of the same sentence i: always ranks per sentence,
never the sequence of sentence ids (taking tau over ids depends on how they were numbered).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from scipy import stats

Positions = Sequence[int] | np.ndarray


def positions_of(order: Positions) -> np.ndarray:
    """The position of each sentence in an order: ``positions_of([2, 0, 1]) == [1, 2, 0]``.

    Args:
        order: (n,) sentence indices from first to last, a permutation of 0..n-1.

    Raises:
        ValueError: if it is not a permutation.
    """
    order = np.asarray(order)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(f"not a permutation of 0..{len(order) - 1}: {order.tolist()}")
    positions = np.empty(len(order), dtype=np.int64)
    positions[order] = np.arange(len(order))
    return positions


def in_source_order(order: Sequence[int], sentences: Sequence[str]) -> list[int]:
    """The same order with sentences that are alike put as they stand in the source: which copy is which is no matter.

    ``in_source_order([2, 1, 0], ["Knock.", "Who?", "Knock."]) == [0, 1, 2]``

    Args:
        order: (n,) indices into ``sentences``, a permutation.
        sentences: (n,) of the document, in the order of the source.
    """
    if len(set(sentences)) == len(sentences):
        return list(order)
    copies: dict[str, list[int]] = {}
    for index in range(len(sentences) - 1, -1, -1):
        copies.setdefault(sentences[index], []).append(index)
    return [copies[sentences[index]].pop() for index in order]


def _pair(positions: Positions, gold: Positions) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = np.asarray(positions), np.asarray(gold)
    if predicted.shape != true.shape or predicted.ndim != 1 or len(predicted) == 0:
        raise ValueError(
            f"positions and gold must be equally long lists with at least one entry, got shapes {predicted.shape} and "
            f"{true.shape}"
        )
    return predicted, true


def kendall_tau(positions: Positions, gold: Positions) -> float:
    """Kendall's tau of one document: 1 for the same order, -1 for the reverse, 0 on average for a random one.

    ``1 - 4 * inversions / (n * (n - 1))`` where there are no ties, tau-b where there are (Kendall, 1938; 1945).

    Args:
        positions: (n,) predicted position of each sentence.
        gold: (n,) true position of each sentence.

    Returns:
        -1 to 1; NaN where tau is not defined (one sentence, or all positions tied).
    """
    predicted, true = _pair(positions, gold)
    return float(stats.kendalltau(predicted, true).statistic) if len(predicted) > 1 else float("nan")


def accuracy(positions: Positions, gold: Positions) -> float:
    """The share of sentences of one document that stand at their true position, 0 to 1."""
    predicted, true = _pair(positions, gold)
    return float(np.mean(predicted == true))


def perfect_match(positions: Positions, gold: Positions) -> float:
    """1.0 if every sentence of the document stands at its true position, else 0.0."""
    predicted, true = _pair(positions, gold)
    return float(np.array_equal(predicted, true))


def _in_gold_order(positions: Positions, gold: Positions) -> np.ndarray:
    """The predicted positions, the sentence that truly comes first given first."""
    predicted, true = _pair(positions, gold)
    return predicted[np.argsort(true, kind="stable")]


def longest_common_subsequence(positions: Positions, gold: Positions) -> float:
    """The longest run of sentences, gaps allowed, that stand in both orders in the same sequence, as a share of all.

    The true order counts the sentences up, so it is the longest increasing subsequence of the predicted positions
    (Schensted, 1961): O(n log n) by patience sorting (Fredman, 1975).

    Args:
        positions: (n,) predicted position of each sentence.
        gold: (n,) true position of each sentence.

    Returns:
        1/n (the reverse) to 1 (the same order).
    """
    sequence = _in_gold_order(positions, gold).tolist()
    ends: list[int] = []  # ends[k]: the smallest position at which an increasing subsequence of k + 1 sentences ends
    for position in sequence:
        place = bisect_left(ends, position)
        ends[place : place + 1] = [position]
    return len(ends) / len(sequence)


def skip_bigram(positions: Positions, gold: Positions) -> float:
    """The share of all pairs of sentences whose order is kept: ROUGE-S (Lin, 2004) of the two orders, as sets of pairs.

    Both orders have n(n-1)/2 pairs, so recall, precision and F are the same; without ties it is (tau + 1) / 2.

    Args:
        positions: (n,) predicted position of each sentence.
        gold: (n,) true position of each sentence.

    Returns:
        0 (the reverse) to 1 (the same order); NaN for one sentence, which has no pairs.
    """
    sequence = _in_gold_order(positions, gold)
    pairs = len(sequence) * (len(sequence) - 1) // 2
    kept = sum(int(np.count_nonzero(sequence[i + 1 :] > sequence[i])) for i in range(len(sequence) - 1))
    return kept / pairs if pairs else float("nan")


def within(positions: Positions, gold: Positions, distance: int) -> float:
    """The share of sentences that stand at most ``distance`` places from their true position, 0 to 1.

    With a distance of 0 it is the accuracy; the code of B-TSort (Prabhumoye et al., 2020) calls it the minimum distance
    metric.
    """
    predicted, true = _pair(positions, gold)
    return float(np.mean(np.abs(predicted - true) <= distance))


def first_sentence(positions: Positions, gold: Positions) -> float:
    """1.0 if the sentence that truly comes first is put first, else 0.0."""
    return float(_in_gold_order(positions, gold)[0] == 0)


def last_sentence(positions: Positions, gold: Positions) -> float:
    """1.0 if the sentence that truly comes last is put last, else 0.0."""
    sequence = _in_gold_order(positions, gold)
    return float(sequence[-1] == len(sequence) - 1)


def spearman(positions: Positions, gold: Positions) -> float:
    """Spearman's rank correlation of one document (Spearman, 1904): far displacements weigh more than in tau.

    Positions are ranks already, so it is ``1 - 6 * sum(d ** 2) / (n * (n ** 2 - 1))`` with d the displacements.

    Args:
        positions: (n,) predicted position of each sentence, a permutation of 0..n-1.
        gold: (n,) true position of each sentence, likewise.

    Returns:
        -1 (the reverse) to 1 (the same order); NaN for one sentence.
    """
    predicted, true = _pair(positions, gold)
    n = len(predicted)
    if n == 1:
        return float("nan")
    return 1 - 6 * float(np.sum(np.square(predicted - true, dtype=np.float64))) / (n * (n * n - 1))


FIGURES: Mapping[str, Callable[[Positions, Positions], float]] = {
    "kendall_tau": kendall_tau,
    "accuracy": accuracy,
    "perfect_match_ratio": perfect_match,
    "longest_common_subsequence": longest_common_subsequence,
    "skip_bigram": skip_bigram,
    "within_1": partial(within, distance=1),
    "within_2": partial(within, distance=2),
    "within_3": partial(within, distance=3),
    "first_sentence": first_sentence,
    "last_sentence": last_sentence,
    "spearman": spearman,
}
"""What is measured of each document, by the name of its mean over documents."""

MAIN_FIGURES = ("kendall_tau", "accuracy", "perfect_match_ratio")
"""What everybody reports; these get intervals."""

DETAILS = frozenset([*FIGURES, "kendall_tau_micro", "accuracy_micro"]) - frozenset(MAIN_FIGURES)
"""What is left out where there is little room."""

SENTENCES = "sentences"
"""Beside the figures of documents: how many sentences each has."""


def figures_of_documents(predictions: Iterable[Positions], references: Iterable[Positions]) -> dict[str, np.ndarray]:
    """The figures of each document with two sentences or more; there is nothing to order in the others.

    Args:
        predictions: predicted positions of each document.
        references: gold positions of each document.

    Returns:
        Each of ``FIGURES`` and ``sentences``: (documents,), in the order in which they were given. A prediction that
        has all sentences at one position, of which tau is not defined, says nothing about their order: its tau is 0.

    Raises:
        ValueError: if the two differ in length, or a prediction and its reference do.
    """
    pairs = [_pair(*pair) for pair in zip(predictions, references, strict=True)]
    scored = [pair for pair in pairs if len(pair[0]) > 1]
    figures = {
        name: np.nan_to_num(np.array([figure(*pair) for pair in scored], dtype=np.float64), nan=0.0)
        for name, figure in FIGURES.items()
    }
    return figures | {SENTENCES: np.array([len(gold) for _, gold in scored], dtype=np.int64)}


def averages(figures: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means of the figures of documents: each document counts once (macro), and once more by its size (micro).

    Args:
        figures: from :func:`figures_of_documents`, each (documents,).

    Returns:
        The macro mean of each of ``FIGURES``; ``kendall_tau_micro``, in which a document weighs as its pairs of
        sentences (``1 - 4 * sum(inversions) / sum(n * (n - 1))``, that of the AI4Code competition, in which long
        documents decide); ``accuracy_micro``, in which it weighs as its sentences (B-TSort, RE-BART); ``documents``,
        how many these are over. NaN if there are none.
    """
    n = figures[SENTENCES].astype(np.float64)
    if len(n) == 0:
        return dict.fromkeys([*FIGURES, "kendall_tau_micro", "accuracy_micro"], float("nan")) | {"documents": 0}
    return {name: float(np.mean(figures[name])) for name in FIGURES} | {
        "kendall_tau_micro": float(np.average(figures["kendall_tau"], weights=n * (n - 1))),
        "accuracy_micro": float(np.average(figures["accuracy"], weights=n)),
        "documents": len(n),
    }


def ordering_metrics(predictions: Iterable[Positions], references: Iterable[Positions]) -> dict[str, float]:
    """All figures of predicted orders.

    Documents of one sentence have nothing to order: they are left out of the means and counted.

    Args:
        predictions: predicted positions of each document, a permutation of 0..n-1.
        references: gold positions of each document, likewise.

    Returns:
        What :func:`averages` gives, and ``single_sentence_documents``, how many were left out.

    Raises:
        ValueError: if the two differ in length, or a prediction and its reference do.
    """
    predictions = list(predictions)
    scores = averages(figures_of_documents(predictions, references))
    return scores | {"single_sentence_documents": len(predictions) - scores["documents"]}

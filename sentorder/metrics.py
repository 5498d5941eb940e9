"""How good a predicted order is: pure functions on (predicted positions, gold positions).

``positions[i]`` is the predicted and ``gold[i]`` the true position of the same sentence i: always ranks per sentence,
never the sequence of sentence ids (taking tau over ids depends on how they were numbered).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def ordering_metrics(predictions: Iterable[Positions], references: Iterable[Positions]) -> dict[str, float]:
    """Means over documents (each document counts once, whatever its length).

    Documents of one sentence have nothing to order: they are left out of the means and counted.

    Args:
        predictions: predicted positions of each document.
        references: gold positions of each document.

    Returns:
        ``kendall_tau``, ``accuracy``, ``perfect_match_ratio`` (means; NaN if no document is left), ``documents`` (how
        many they are over) and ``single_sentence_documents`` (how many were left out).

    Raises:
        ValueError: if the two differ in length.
    """
    pairs = list(zip(predictions, references, strict=True))
    scored = [(positions, gold) for positions, gold in pairs if len(gold) > 1]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        "kendall_tau": mean([kendall_tau(*pair) for pair in scored]),
        "accuracy": mean([accuracy(*pair) for pair in scored]),
        "perfect_match_ratio": mean([perfect_match(*pair) for pair in scored]),
        "documents": len(scored),
        "single_sentence_documents": len(pairs) - len(scored),
    }

"""How sure a figure is: intervals of a mean over documents, and whether one system is better than another.

Both say how figures would vary with other documents of the same kind. They do not say how they vary when a model is
trained again: average several runs with :func:`over_runs`, and say over how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from .metrics import MAIN_FIGURES, SENTENCES

CONFIDENCE = 0.95
RESAMPLES = 10_000
INTERVAL_RESAMPLES = 2_000
"""Of the interval of one mean, which every evaluation works out: its ends move by a fiftieth of its width."""
SEED = 0
"""Of everything that is drawn here: the same values always give the same interval and p value."""

_NUMBERS_AT_ONCE = 2_000_000  # 16 MB of float64; all resamples of many documents would take gigabytes


class Interval(NamedTuple):
    """From the lower to the upper end."""

    low: float
    high: float


class Difference(NamedTuple):
    """How much better the second of two systems is than the first."""

    difference: float
    """Mean of the second less mean of the first."""
    low: float
    high: float
    """The ends of its interval."""
    p_value: float
    """How often a difference at least as large, in either direction, would come by chance if the two were alike."""


def over_runs(runs: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of each document over the runs of one system, say with several seeds.

    Documents are then resampled with all their runs: several runs of one document are no independent documents.

    Args:
        runs: for each run (documents,), the same documents in the same order.

    Returns:
        (documents,)
    """
    mean: np.ndarray = np.mean(np.stack(list(runs)), axis=0)
    return mean


def _documents(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected one value for each of two documents or more, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("every document must have a finite value")
    return values


def mean_interval(values: np.ndarray, *, resamples: int = INTERVAL_RESAMPLES, seed: int = SEED) -> Interval:
    """The 95 % bootstrap interval of a mean over documents, by the percentile method (Efron & Tibshirani, 1993).

    Documents are drawn with replacement, as many as there are. With few documents (below 30 or so) it is too narrow,
    and where all values are the same it has no width: a perfect match ratio of 0 among 10 documents is not known to be
    0.

    Args:
        values: (documents,) one figure of each document.
        resamples: how often documents are drawn anew.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two documents, or a value that is not finite.
    """
    values = _documents(values)
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _NUMBERS_AT_ONCE // len(values)),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def main_intervals(figures: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The ends of the intervals of tau, accuracy and perfect match ratio, as they stand beside scores.

    Args:
        figures: from :func:`sentorder.metrics.figures_of_documents`.

    Returns:
        ``kendall_tau_low``, ``kendall_tau_high``, ...; nothing for fewer than two documents, which have no interval.
    """
    ends: dict[str, float] = {}
    if len(figures[SENTENCES]) > 1:
        for name in MAIN_FIGURES:
            low, high = mean_interval(figures[name])
            ends |= {f"{name}_low": low, f"{name}_high": high}
    return ends


def sign_flip_p_value(differences: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> float:
    """Two-sided p value of a paired permutation test (Good, 2005): is the mean of these differences 0?

    If two systems are alike, it is a matter of chance which of them a document's two values come from, and so is the
    sign of their difference. The p value is the share of random signs whose mean is at least as far from 0 as the one
    that was seen, which is itself counted in, so it is never below 1 / (resamples + 1).

    ``scipy.stats.permutation_test(permutation_type="samples")`` draws the same but takes ten seconds for 10,000
    documents, this one less than one.

    Args:
        differences: (documents,) of the two systems' values of each document.
        resamples: how many random signs are drawn for all documents.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two documents, or a value that is not finite.
    """
    differences = _documents(differences)
    differences = differences[differences != 0]  # whose sign makes no difference
    seen = abs(differences.sum())
    almost = seen - 1e-9 * np.abs(differences).sum()  # sums that are equal may differ by rounding
    generator = np.random.default_rng(seed)
    batch = max(1, _NUMBERS_AT_ONCE // max(1, len(differences)))
    as_far = 0
    for start in range(0, resamples, batch):
        size = (min(batch, resamples - start), len(differences))
        signs = 1.0 - 2.0 * generator.integers(0, 2, size, dtype=np.int8)
        as_far += int(np.count_nonzero(np.abs(signs @ differences) >= almost))
    return (as_far + 1) / (resamples + 1)


def paired_difference(
    first: np.ndarray, second: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """Compare two systems on the same documents.

    The interval is a paired bootstrap (Koehn, 2004): documents are drawn together with the values that both systems
    have for them. It is narrower than those of the two means where both find the same documents hard. The p value is
    that of :func:`sign_flip_p_value`. It is for one comparison: among twenty systems that are alike, one will have a p
    value below 0.05.

    Args:
        first: (documents,) one figure of each document; of several runs see :func:`over_runs`.
        second: (documents,) the same figure of the same documents, by the other system.
        resamples: how often documents and signs are drawn.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two documents, arrays of different length, or a value that is not finite.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"both systems need the same documents, got {np.shape(first)} and {np.shape(second)} values")
    differences = _documents(np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64))
    low, high = mean_interval(differences, resamples=resamples, seed=seed)
    p_value = sign_flip_p_value(differences, resamples=resamples, seed=seed)
    return Difference(float(differences.mean()), low, high, p_value)

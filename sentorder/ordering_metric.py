"""The metrics of :mod:`sentorder.metrics` as an ``evaluate.Metric``.

``evaluate.load("sentorder/ordering_metric.py")`` or ``SentenceOrdering()``; needs the ``sentorder`` package either way.
"""

import datasets
import evaluate

from sentorder.metrics import ordering_metrics

_DESCRIPTION = """
Of predicted sentence orders: Kendall's tau, positional accuracy, perfect match ratio, longest common subsequence, skip
bigrams, displacements, first and last sentence, Spearman's rank correlation; tau and accuracy micro-averaged as well.
"""
_INPUTS = """
    predictions: for each document the predicted position of each sentence
    references: for each document the true position of each sentence
"""


class SentenceOrdering(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """``add_batch(predictions=..., references=...)``, then ``compute()``.

    Keep it in memory (``SentenceOrdering(keep_in_memory=True)``) to leave no cache files behind.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("int64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        return ordering_metrics(predictions, references)

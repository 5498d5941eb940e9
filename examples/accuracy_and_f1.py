"""Accuracy and F1 of binary labels without the Hub: ``evaluate.load("examples/accuracy_and_f1.py")``."""

import datasets
import evaluate


class AccuracyAndF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description="Accuracy, and F1 of label 1.",
            citation="",
            inputs_description="predictions, references: 0 or 1 for each example",
            features=datasets.Features(features),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        pairs = list(zip(predictions, references, strict=True))
        hits = sum(predicted == true == 1 for predicted, true in pairs)
        mistakes = sum(predicted != true for predicted, true in pairs)
        return {
            "accuracy": 1 - mistakes / len(pairs),
            "f1": 2 * hits / (2 * hits + mistakes) if hits else 0.0,
        }

"""Which model is the best so far, and when to give up waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Selection:
    """Compares evaluations; its fields are plain values, to be kept in a checkpoint."""

    metric: str
    """A key of the scores; of ``loss`` the lowest is best, of all others the highest."""
    best_step: int = 0
    """The optimizer step of the best evaluation; 0 before the first."""
    best_scores: dict[str, float] | None = None
    latest_scores: dict[str, float] | None = None
    since_best: int = 0
    """Evaluations since then that were no better."""

    def add(self, step: int, scores: Mapping[str, float]) -> bool:
        """Take an evaluation into account; True if it is the best so far (the first of equals is)."""
        self.latest_scores = dict(scores)
        if self.best_scores is not None and self._worth(scores) <= self._worth(self.best_scores):
            self.since_best += 1
            return False
        self.best_step, self.best_scores, self.since_best = step, dict(scores), 0
        return True

    def _worth(self, scores: Mapping[str, float]) -> float:
        value = scores[self.metric]
        return -math.inf if math.isnan(value) else -value if self.metric == "loss" else value

    def is_exhausted(self, patience: int | None) -> bool:
        """Whether so many evaluations in a row were no better."""
        return patience is not None and self.since_best >= patience

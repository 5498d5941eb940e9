"""The global plan: which documents make up which optimizer step, whatever the number of processes or micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

BLOCK_STEPS = 50
"""Documents are sorted by length within blocks of this many steps: nearly no padding, still well mixed."""


class PlannedDocument(NamedTuple):
    """What the plan asks of the data set. The epoch travels along, so that workers that outlive an epoch shuffle the
    sentences rightly."""

    epoch: int
    row: int
    """Of the document in its table."""
    weight: float
    """1, or 0 for a filler that only gives a process something to run."""


class GlobalPlan:
    """A batch sampler whose optimizer steps are a function of (seed, epoch, step) alone.

    A step is a list of documents. It is cut into ``micro_batches`` (accumulation x processes) of nearly equal size,
    which are yielded in rank order: micro-batch ``a * processes + r`` is for process ``r``. That is how a prepared
    loader deals them out, because there is no ``batch_size`` attribute (with one, Accelerate drops batches of other
    sizes) and because every epoch has a multiple of ``micro_batches``. Where a short last step leaves a micro-batch
    empty, it gets a filler document of weight 0; with ``same_size`` each micro-batch is filled up to the same size.

    Args:
        lengths: tokens of each document.
        step_size: documents per optimizer step.
        micro_batches: gradient accumulation x number of processes.
        seed: shuffles the documents anew in each epoch; None keeps them sorted by length, longest first, and every
            pass is epoch 0 (evaluation).
        same_size: fill every micro-batch up with documents of weight 0.

    Raises:
        ValueError: for an empty data set or a size below 1.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        step_size: int,
        *,
        micro_batches: int = 1,
        seed: int | None = None,
        same_size: bool = False,
    ) -> None:
        if len(lengths) < 1 or step_size < 1 or micro_batches < 1:
            raise ValueError("A plan needs at least one document, one document per step and one micro-batch.")
        self.lengths = np.asarray(lengths)
        self.step_size = step_size
        self.micro_batches = micro_batches
        self.seed = seed
        self.least = -(-step_size // micro_batches) if same_size else 1  # documents per micro-batch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    @property
    def sampler(self) -> GlobalPlan:
        """Where Accelerate looks for ``set_epoch`` when it deals the batches out to several processes."""
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the documents."""
        return -(-len(self.lengths) // self.step_size)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.micro_batches

    def steps(self, epoch: int) -> list[list[int]]:
        """The documents of each optimizer step of an epoch, each document once."""
        return [step.tolist() for step in self._steps(epoch)]

    def _steps(self, epoch: int) -> list[np.ndarray]:
        if self.seed is None:
            return self._cut(np.argsort(-self.lengths, kind="stable"))
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        block = BLOCK_STEPS * self.step_size
        blocks = [order[start : start + block] for start in range(0, len(order), block)]
        order = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in blocks])
        steps = self._cut(order)
        return [steps[index] for index in random.permutation(len(steps))]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[start : start + self.step_size] for start in range(0, len(order), self.step_size)]

    def __iter__(self) -> Iterator[list[PlannedDocument]]:
        # In evaluation every pass is the same one: Accelerate counts passes as epochs, and with each of them the
        # sentences would be shuffled anew.
        epoch = 0 if self.seed is None else self.epoch
        for step in self._steps(epoch):
            by_length = sorted(step.tolist(), key=lambda row: (int(self.lengths[row]), row))
            for share in np.array_split(np.asarray(by_length), self.micro_batches):
                planned = [PlannedDocument(epoch, int(row), 1.0) for row in share]
                yield planned + [PlannedDocument(epoch, by_length[0], 0.0)] * (self.least - len(planned))

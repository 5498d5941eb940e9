"""The data that passes between the modules: what the collator makes, what a model returns, what a decoder returns.

B documents in the batch, N the most sentences in one of them, L tokens, H hidden size. A *slot* is a place in the
shuffled input, a *position* a place in the gold (or the predicted) order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict, runtime_checkable

import torch
from transformers.utils.generic import ModelOutput


class Batch(TypedDict, total=False):
    """What the collator hands to the model. Nothing downstream searches ``input_ids`` for a marker."""

    input_ids: torch.Tensor
    """(B, L) int64: marker and tokens of the sentence in slot 0, then of slot 1, ...; (B, N, L) where each sentence is
    encoded by itself, and so are the next two."""
    attention_mask: torch.Tensor
    """(B, L) int64: 1 for tokens, 0 for padding."""
    token_slots: torch.Tensor
    """(B, L) int64: the slot each token belongs to, -1 for padding. The first token of a slot is its marker."""
    slot_mask: torch.Tensor
    """(B, N) bool: True where the document has a sentence."""
    positions: torch.Tensor
    """(B, N) int64: the gold position of the sentence in each slot, -100 where there is none. Absent at prediction.
    Slots with the same tokens share theirs out in ascending order: what is to be learned, and not what is right."""
    sources: torch.Tensor
    """(B, N) int64: which sentence of its document, as that was given, stands in each slot; -100 where there is none.
    For whoever maps a decoded order back, and nobody else."""
    document_ids: torch.Tensor
    """(B,) int64: the row of the document in its data set."""
    weights: torch.Tensor
    """(B,) float32: 1, or 0 for a filler document that only makes counts even."""


@dataclass
class OrderingOutput(ModelOutput):
    """What a model returns: the state of each slot and whatever its head gives.

    A ``ModelOutput``, so that Accelerate hands it back in float32 when it ran under autocast.
    """

    slot_states: torch.Tensor | None = None
    """(B, N, H): one vector per sentence."""
    scores: torch.Tensor | None = None
    """(B, N): the lower, the earlier."""
    pair_logits: torch.Tensor | None = None
    """(B, N, N), antisymmetric: positive where slot i precedes slot j."""
    adjacency_logits: torch.Tensor | None = None
    """(B, N, N): the higher, the rather slot j directly follows slot i. The diagonal plays no part."""
    position_logits: torch.Tensor | None = None
    """(B, N, N): the higher, the rather slot i stands at position p. Positions beyond the document play no part."""
    next_slot_logits: torch.Tensor | None = None
    """(B, N, N): row t scores what comes after the first t sentences of the gold order, -inf for those themselves.
    Only where positions were given; a loss may look at it, a decoder may not."""


class Decoded(NamedTuple):
    """One predicted order of one document."""

    order: list[int]
    """The slots in predicted order: always a permutation of 0..n-1."""
    score: float
    """What the decoder maximised; comparable only between orders of the same document."""
    confidence: float
    """0 (a guess) to 1 (certain); each decoder says what it measures."""


class Loss(Protocol):
    """A loss per document: the loop alone makes the mean."""

    def __call__(self, output: OrderingOutput, batch: Batch, /) -> torch.Tensor:
        """(B,) one value per document."""
        ...


class Prefixes(NamedTuple):
    """W beginnings of an order for each document: what is chosen, what is left, and what the head remembers of it."""

    memories: torch.Tensor
    """(B, W, M) the head's own."""
    chosen: torch.Tensor
    """(B, W, N) bool: the slots that stand in the prefix."""
    left: torch.Tensor
    """(B, W, N) bool: the slots that can come next; a row with none is complete."""
    last: torch.Tensor
    """(B, W) int64: the slot that was chosen last, -1 for an empty prefix."""
    most: int
    """No prefix has more slots left than so many: known without asking the device, it saves to look at the others."""


@runtime_checkable
class AutoregressiveHead(Protocol):
    """A head that chooses sentence after sentence; W prefixes per document are handled at once."""

    def read(self, output: OrderingOutput, slot_mask: torch.Tensor, /) -> Any:
        """All that the choices need to know of the documents, however many sentences are chosen.

        ``output`` is what the head gave for them.
        """
        ...

    def first_memory(self, reading: Any, slot_mask: torch.Tensor, /) -> torch.Tensor:
        """(B, M) what is remembered before anything is chosen."""
        ...

    def choices(self, reading: Any, prefixes: Prefixes, /) -> torch.Tensor:
        """(B, W, N) logits of what comes next, -inf for what is not left; a complete prefix gets zeros."""
        ...

    def remember(self, reading: Any, memories: torch.Tensor, slots: torch.Tensor, /) -> torch.Tensor:
        """(B, W, M) the memories (B, W, M) after choosing slots (B, W)."""
        ...


class Decoder(Protocol):
    """Orders from a model's output. A decoder never sees gold positions."""

    def __call__(self, output: OrderingOutput, slot_mask: torch.Tensor, /, *, k: int = 1) -> list[list[Decoded]]:
        """For each document up to ``k`` distinct orders, best first."""
        ...


class StepDecoder(Protocol):
    """A decoder that steps through an autoregressive head; ``SentenceOrderer.decode`` hands the head over."""

    def __call__(
        self, output: OrderingOutput, slot_mask: torch.Tensor, /, *, k: int = 1, head: AutoregressiveHead
    ) -> list[list[Decoded]]:
        """As :class:`Decoder`."""
        ...

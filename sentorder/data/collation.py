"""Shuffle the sentences of each document, join them behind markers, pad the batch, and load it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from ..contracts import Batch
from .sampling import GlobalPlan, PlannedDocument


def shuffle_slots(sentence_ids: Sequence[Sequence[int]], seed: int, epoch: int) -> list[int]:
    """A random order of the sentences that is a function of (seed, epoch, document) alone.

    The sentences are sorted by a keyed hash of their own tokens, so the slot of a sentence does not depend on where it
    stood: neither the gold order nor the order in which somebody hands the sentences over can leak into the slots, and
    a document comes out the same whatever the batch, the worker or the process. Sentences with the same tokens are
    told apart by a second hash, of the document and their place in it.

    Args:
        sentence_ids: token ids of each sentence, in the order of the source.
        seed: of the run.
        epoch: 0 for evaluation and prediction.

    Returns:
        For each slot the index of its sentence in the source.
    """
    key = f"{seed} {epoch}".encode()

    def digest(*parts: bytes) -> bytes:
        return hashlib.blake2b(b"\0".join(parts), digest_size=8, key=key).digest()

    tokens = [np.asarray(ids, dtype=np.int64).tobytes() for ids in sentence_ids]
    hashes = [digest(sentence) for sentence in tokens]
    if len(set(hashes)) == len(hashes):
        return sorted(range(len(tokens)), key=hashes.__getitem__)
    places = [digest(*tokens, str(index).encode()) for index in range(len(tokens))]
    return sorted(range(len(tokens)), key=lambda index: (hashes[index], places[index]))


class EncodedDocument(NamedTuple):
    """One document as the collator takes it."""

    planned: PlannedDocument
    sentence_ids: list[list[int]]


class Shape(NamedTuple):
    """What every batch is padded to, where batches must not differ in shape."""

    tokens: int
    """Of an input: a document, or a sentence where each is an input of its own."""
    sentences: int
    """Of a document."""


WIDTH_STEP = 8
"""On a GPU inputs are padded to a multiple of it: its matrix units like that, and few shapes are recorded
(:mod:`sentorder.cuda_graphs`)."""


class Collator:
    """Makes the model's inputs of documents; see the two kinds below.

    Args:
        marker_id: the token before each sentence (the tokenizer's own cls token).
        pad_id: the token that fills up.
        seed: of the shuffles.
        with_positions: also give the gold positions (the source is in gold order).
        shape: what to pad to; None for the longest input of the batch and its most sentences.
        most_tokens: that an input may have, padding included; None for any number.
    """

    def __init__(
        self,
        marker_id: int,
        pad_id: int,
        *,
        seed: int,
        with_positions: bool = True,
        shape: Shape | None = None,
        most_tokens: int | None = None,
    ) -> None:
        self.marker_id = marker_id
        self.pad_id = pad_id
        self.most_tokens = most_tokens
        self.width_step = WIDTH_STEP if torch.cuda.is_available() else 1
        self.seed = seed
        self.with_positions = with_positions
        self.shape = shape

    def __call__(self, documents: Sequence[EncodedDocument]) -> Batch:
        """Make a batch.

        Returns:
            A :class:`~sentorder.contracts.Batch`.
        """
        orders = [shuffle_slots(document.sentence_ids, self.seed, document.planned.epoch) for document in documents]
        slots = [
            [[self.marker_id, *document.sentence_ids[index]] for index in order]
            for document, order in zip(documents, orders, strict=True)
        ]
        most = self.shape.sentences if self.shape else max(len(order) for order in orders)
        sources, positions = np.full((2, len(documents), most), -100, dtype=np.int64)
        for row, (order, sentences) in enumerate(zip(orders, slots, strict=True)):
            sources[row, : len(order)] = order
            positions[row, : len(order)] = _with_copies_in_slot_order(order, sentences)
        input_ids, token_slots = self.tokens(slots, most)
        batch = Batch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy((token_slots >= 0).astype(np.int64)),
            token_slots=torch.from_numpy(token_slots),
            slot_mask=torch.from_numpy(sources >= 0),
            sources=torch.from_numpy(sources),
            document_ids=torch.tensor([document.planned.row for document in documents]),
            weights=torch.tensor([document.planned.weight for document in documents]),
        )
        if self.with_positions:
            batch["positions"] = torch.from_numpy(positions)
        return batch

    def width(self, longest: int) -> int:
        """L, where the longest input of a batch has so many tokens."""
        if self.shape is not None:
            return self.shape.tokens
        width = -(-longest // self.width_step) * self.width_step
        return width if self.most_tokens is None else max(longest, min(width, self.most_tokens))

    def tokens(self, slots: list[list[list[int]]], most: int) -> tuple[np.ndarray, np.ndarray]:
        """``input_ids`` and ``token_slots``.

        Args:
            slots: the tokens of each slot of each document, marker first.
            most: N.
        """
        raise NotImplementedError


class JointCollator(Collator):
    """All sentences of a document in one input: ``[marker] s_a [marker] s_b ...``, in the order of their slots."""

    def tokens(self, slots: list[list[list[int]]], most: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, L) each."""
        width = self.width(max(sum(map(len, sentences)) for sentences in slots))
        input_ids = np.full((len(slots), width), self.pad_id, dtype=np.int64)
        token_slots = np.full((len(slots), width), -1, dtype=np.int64)
        for row, sentences in enumerate(slots):
            lengths = [len(tokens) for tokens in sentences]
            input_ids[row, : sum(lengths)] = [token for tokens in sentences for token in tokens]
            token_slots[row, : sum(lengths)] = np.repeat(np.arange(len(sentences)), lengths)
        return input_ids, token_slots


class SentenceCollator(Collator):
    """Each sentence an input of its own: ``[marker] s``; the encoder's window limits the sentence alone."""

    def tokens(self, slots: list[list[list[int]]], most: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, N, L) each."""
        width = self.width(max(len(tokens) for sentences in slots for tokens in sentences))
        input_ids = np.full((len(slots), most, width), self.pad_id, dtype=np.int64)
        token_slots = np.full((len(slots), most, width), -1, dtype=np.int64)
        for row, sentences in enumerate(slots):
            for slot, tokens in enumerate(sentences):
                input_ids[row, slot, : len(tokens)] = tokens
                token_slots[row, slot, : len(tokens)] = slot
        return input_ids, token_slots


def _with_copies_in_slot_order(order: list[int], sentences: list[list[int]]) -> list[int]:
    """The positions of the slots, where slots with the same tokens share theirs out in ascending order.

    Which copy stood first in the source nobody can tell: labels at random there would only teach noise.
    """
    of_tokens: dict[tuple[int, ...], list[int]] = {}
    for slot, tokens in enumerate(sentences):
        of_tokens.setdefault(tuple(tokens), []).append(slot)
    if len(of_tokens) == len(sentences):
        return order
    positions = list(order)
    for copies in of_tokens.values():
        for slot, position in zip(copies, sorted(order[slot] for slot in copies), strict=True):
            positions[slot] = position
    return positions


class EncodedDocuments(torch.utils.data.Dataset[EncodedDocument]):
    """The rows of a tokenised table, by what the plan asks for."""

    def __init__(self, table: Dataset) -> None:
        self.table = table.select_columns(["sentence_ids"])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, planned: PlannedDocument) -> EncodedDocument:
        return self.__getitems__([planned])[0]

    def __getitems__(self, planned: Sequence[PlannedDocument]) -> list[EncodedDocument]:
        """Those of a batch together, which is several times as fast; what a loader calls."""
        found = self.table[[document.row for document in planned]]["sentence_ids"]
        return [EncodedDocument(document, ids) for document, ids in zip(planned, found, strict=True)]


def ordering_loader(table: Dataset, plan: GlobalPlan, collator: Collator, *, num_workers: int = 0) -> DataLoader[Any]:
    """A loader of the planned batches, ready for ``accelerator.prepare``.

    It has a generator of its own: otherwise every new iterator would draw from the global one, and dropout would
    depend on how often somebody iterated.
    """
    return DataLoader(
        EncodedDocuments(table),
        batch_sampler=plan,
        collate_fn=collator,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )

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
    sentences: int


class JointCollator:
    """All sentences of a document in one input: ``[marker] s_a [marker] s_b ...``, in the order of their slots.

    Args:
        marker_id: the token before each sentence (the tokenizer's own cls token).
        pad_id: the token that fills up.
        seed: of the shuffles.
        with_positions: also give the gold positions (the source is in gold order).
        shape: what to pad to; None for the longest document of the batch and its most sentences.
    """

    def __init__(
        self, marker_id: int, pad_id: int, *, seed: int, with_positions: bool = True, shape: Shape | None = None
    ) -> None:
        self.marker_id = marker_id
        self.pad_id = pad_id
        self.seed = seed
        self.with_positions = with_positions
        self.shape = shape

    def __call__(self, documents: Sequence[EncodedDocument]) -> Batch:
        """Make a batch.

        Returns:
            A :class:`~sentorder.contracts.Batch`.
        """
        slots = [shuffle_slots(document.sentence_ids, self.seed, document.planned.epoch) for document in documents]
        lengths = [sum(len(ids) + 1 for ids in document.sentence_ids) for document in documents]
        size = len(documents)
        width, most = self.shape or (max(lengths), max(len(order) for order in slots))
        input_ids = np.full((size, width), self.pad_id, dtype=np.int64)
        token_slots = np.full((size, width), -1, dtype=np.int64)
        positions = np.full((size, most), -100, dtype=np.int64)
        for row, (document, order) in enumerate(zip(documents, slots, strict=True)):
            positions[row, : len(order)] = order
            start = 0
            for slot, index in enumerate(order):
                ids = document.sentence_ids[index]
                end = start + 1 + len(ids)
                input_ids[row, start] = self.marker_id
                input_ids[row, start + 1 : end] = ids
                token_slots[row, start:end] = slot
                start = end
        batch = Batch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy((token_slots >= 0).astype(np.int64)),
            token_slots=torch.from_numpy(token_slots),
            slot_mask=torch.from_numpy(positions >= 0),
            document_ids=torch.tensor([document.planned.row for document in documents]),
            weights=torch.tensor([document.planned.weight for document in documents]),
        )
        if self.with_positions:
            batch["positions"] = torch.from_numpy(positions)
        return batch


class EncodedDocuments(torch.utils.data.Dataset[EncodedDocument]):
    """The rows of a tokenised table, by what the plan asks for."""

    def __init__(self, table: Dataset) -> None:
        self.table = table.select_columns(["sentence_ids"])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, planned: PlannedDocument) -> EncodedDocument:
        return EncodedDocument(planned, self.table[planned.row]["sentence_ids"])


def ordering_loader(
    table: Dataset, plan: GlobalPlan, collator: JointCollator, *, num_workers: int = 0
) -> DataLoader[Any]:
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

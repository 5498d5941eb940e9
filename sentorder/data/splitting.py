"""Split a source without splits: by its texts alone, always alike. And take the first rows of a table."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from ..errors import UserError
from .cache import digest

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.1
"""The share of a source without splits that becomes validation, and again the share that becomes test."""


class TooFewToSplitError(UserError):
    """A source has fewer different documents, or groups of them, than there are splits."""


def split_table(table: Dataset, name: str = "The source") -> dict[str, Dataset]:
    """Split one source into train, validation and test: 80, 10 and 10 % by a hash.

    Of the group, where documents have one; else of the texts. The split depends on nothing else (no seed, no order of
    lines), so pieces of one thing stay on one side, and so do equal texts (unless they are of two groups).

    Args:
        table: all documents of one source, with the columns of :data:`~sentorder.data.documents.SCHEMA`.
        name: what an error calls the source.

    Raises:
        TooFewToSplitError: if there are fewer than three different documents or groups.
    """
    keys = numbers(table, "key")
    distinct = np.unique(keys)
    if len(distinct) < len(SPLITS):
        what = "documents" if all(group is None for group in table["group"]) else "groups of documents"
        raise TooFewToSplitError(
            f"{name}: {len(distinct)} different {what} cannot be split into train, validation and test; give "
            "--dataset train=FILE,validation=FILE,test=FILE."
        )
    held_out = max(1, round(HELD_OUT_SHARE * len(distinct)))
    of_validation, of_test = keys < distinct[held_out], keys < distinct[2 * held_out]
    sides = (~of_test, of_validation, of_test & ~of_validation)
    return {
        split: table.select(np.flatnonzero(side).tolist(), new_fingerprint=digest(table._fingerprint, split))
        for split, side in zip(SPLITS, sides, strict=True)
    }


def first_rows(table: Dataset, limit: int | None) -> Dataset:
    """At most so many; None for all."""
    if limit is None or limit >= len(table):
        return table
    return table.select(range(limit), new_fingerprint=digest(table._fingerprint, limit))


def numbers(table: Dataset, column: str) -> np.ndarray:
    """A column of numbers as an array."""
    return np.asarray(table.with_format("numpy")[column][:])

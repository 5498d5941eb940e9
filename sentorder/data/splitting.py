"""Split a source without splits: by its texts alone, always alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..errors import UserError
from .documents import Document

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.1
"""The share of a source without splits that becomes validation, and again the share that becomes test."""


def _fingerprint(document: Document) -> str:
    return hashlib.blake2b("\0".join(document.sentences).encode(), digest_size=8).hexdigest()


def split_documents(documents: Sequence[Document], name: str = "The source") -> dict[str, list[Document]]:
    """Split one source into train, validation and test: 80, 10 and 10 % by a hash of the text.

    The split depends on nothing but the texts (no seed, no order of lines), and equal texts stay on one side.

    Args:
        documents: all of one source.
        name: what an error calls the source.

    Raises:
        UserError: if there are fewer than three different documents.
    """
    distinct = sorted({_fingerprint(document) for document in documents})
    if len(distinct) < len(SPLITS):
        raise UserError(
            f"{name}: {len(distinct)} different documents cannot be split into train, validation and test; give "
            "--dataset train=FILE,validation=FILE,test=FILE."
        )
    held_out = max(1, round(HELD_OUT_SHARE * len(distinct)))
    side = dict.fromkeys(distinct, "train")
    side.update(dict.fromkeys(distinct[:held_out], "validation"))
    side.update(dict.fromkeys(distinct[held_out : 2 * held_out], "test"))
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        splits[side[_fingerprint(document)]].append(document)
    return splits

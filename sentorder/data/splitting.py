"""Split a source without splits: by its texts alone, always alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..errors import UserError
from .documents import Document

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.1
"""The share of a source without splits that becomes validation, and again the share that becomes test."""


def fingerprint(document: Document) -> str:
    """A digest of the texts alone, equal for documents that are equal."""
    return _digest("\0".join(document.sentences))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def split_documents(documents: Sequence[Document], name: str = "The source") -> dict[str, list[Document]]:
    """Split one source into train, validation and test: 80, 10 and 10 % by a hash.

    Of the group, where documents have one; else of the texts. The split depends on nothing else (no seed, no order of
    lines), so pieces of one thing stay on one side, and so do equal texts (unless they are of two groups).

    Args:
        documents: all of one source.
        name: what an error calls the source.

    Raises:
        UserError: if there are fewer than three different documents or groups.
    """
    keys = [fingerprint(document) if document.group is None else _digest(document.group) for document in documents]
    distinct = sorted(set(keys))
    if len(distinct) < len(SPLITS):
        what = "documents" if all(document.group is None for document in documents) else "groups of documents"
        raise UserError(
            f"{name}: {len(distinct)} different {what} cannot be split into train, validation and test; give "
            "--dataset train=FILE,validation=FILE,test=FILE."
        )
    held_out = max(1, round(HELD_OUT_SHARE * len(distinct)))
    side = dict.fromkeys(distinct, "train")
    side.update(dict.fromkeys(distinct[:held_out], "validation"))
    side.update(dict.fromkeys(distinct[held_out : 2 * held_out], "test"))
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document, key in zip(documents, keys, strict=True):
        splits[side[key]].append(document)
    return splits

"""Documents as rows of Arrow tables, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from datasets import Dataset

from .documents import Document

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "genre": pa.string(),
        "group": pa.string(),
        "origin": pa.string(),
        "sentences": pa.list_(pa.string()),
        "key": pa.uint64(),
    }
)
"""The columns of documents in a table; ``key`` is :attr:`Document.key`."""


def to_batch(documents: Sequence[Document]) -> pa.RecordBatch:
    """The documents as rows of :data:`SCHEMA`."""
    columns = [[getattr(document, name) for document in documents] for name in SCHEMA.names]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def to_dataset(documents: Sequence[Document]) -> Dataset:
    """Documents of one's own as a table, in memory."""
    return Dataset(pa.Table.from_batches([to_batch(documents)])).remove_columns("key")


def documents_of(table: Dataset) -> Iterator[Document]:
    """The rows of a table of documents, one by one."""
    return (Document(**row) for row in table)

"""Tokenise each sentence once, and cut documents to the encoder's length without dropping a sentence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import transformers
from datasets import Dataset

from .. import __version__
from ..errors import UserError
from .cache import ROWS_AT_ONCE, digest, is_kept, stored_table
from .splitting import numbers
from .workers import in_processes

TOKENIZING = 2
"""Raised whenever a document may become other tokens than before, so that none are taken from the cache as they were.
"""
WORTH_PROCESSES = 20_000
"""With fewer documents to tokenise, starting processes takes longer than they save."""
TOKEN_COLUMNS = pa.schema(
    {
        "sentence_ids": pa.list_(pa.list_(pa.int32())),
        "length": pa.int32(),
        "cut": pa.int32(),
        "count": pa.int32(),
    }
)
"""What :func:`encode_documents` gives."""


def fair_budget(lengths: Sequence[int], max_length: int) -> int:
    """The most tokens that each sentence may keep so that all of them fit together.

    Short sentences stay whole; what they leave over goes to the long ones.

    Args:
        lengths: tokens of each sentence, its marker included.
        max_length: tokens that the encoder takes.

    Returns:
        The largest b with ``sum(min(length, b) for length in lengths) <= max_length``, or the longest length if
        everything fits.

    Raises:
        ValueError: if not even one token for each sentence fits.
    """
    if len(lengths) > max_length:
        raise ValueError(f"{len(lengths)} sentences do not fit into {max_length} tokens.")
    room = max_length
    ascending = sorted(lengths)
    for index, length in enumerate(ascending):
        # From here on every sentence is at least this long: it stays whole if all of them could have this length.
        share = room // (len(ascending) - index)
        if length > share:
            return share
        room -= length
    return ascending[-1]


def encode_documents(
    documents: Sequence[Sequence[str]],
    tokenizer: Any,
    max_length: int,
    names: Sequence[str] | None = None,
    *,
    per_sentence: bool = False,
) -> dict[str, list[Any]]:
    """Token ids per sentence, without markers, cut to a fair budget where a document is too long.

    Args:
        documents: the sentences of each document.
        tokenizer: a Hugging Face tokenizer; padding and truncation baked into its file play no part.
        max_length: tokens per input, markers included.
        names: what an error calls each document.
        per_sentence: an input is a sentence and not a document: each may have ``max_length`` tokens, and a document
            any number of sentences.

    Returns:
        Columns with one entry per document: ``sentence_ids`` (list of lists of token ids), ``length`` (tokens with
        markers), ``cut`` (tokens that were cut off) and ``count`` (of sentences).

    Raises:
        UserError: if a document has so many sentences that not even a marker and one token each fit.
    """
    most = max_length // 2
    for number, sentences in enumerate(documents):
        if len(sentences) > most and not per_sentence:
            raise UserError(
                f"{names[number] if names else f'documents[{number}]'}: has {len(sentences)} sentences, and an encoder "
                f"of {max_length} tokens takes {most} at most. Split the document, use an encoder with a longer "
                "window, train with --backbone hierarchical, which takes any number, or have it put into order in "
                f"pieces (--piece_length {max(2, most // 8)} of evaluation and predict)."
            )
    # White space at the edge of a sentence would tell byte-level tokenizers where it was cut from its text.
    texts = [[sentence.strip() for sentence in sentences] for sentences in documents]
    distinct = list(dict.fromkeys(sentence for sentences in texts for sentence in sentences))
    encoded: list[list[int]] = (
        tokenizer(
            distinct,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,  # a text that talks of [SEP] means the letters
            verbose=False,
        )["input_ids"]
        if distinct
        else []
    )
    ids_of = dict(zip(distinct, encoded, strict=True))
    columns: dict[str, list[Any]] = {field.name: [] for field in TOKEN_COLUMNS}
    for sentences in texts:
        ids = [ids_of[sentence] for sentence in sentences]
        budget = max_length if per_sentence else fair_budget([len(sentence) + 1 for sentence in ids], max_length)
        kept = [sentence if len(sentence) < budget else sentence[: budget - 1] for sentence in ids]
        columns["sentence_ids"].append(kept)
        columns["length"].append(sum(len(sentence) + 1 for sentence in kept))
        columns["cut"].append(sum(len(sentence) for sentence in ids) - sum(len(sentence) for sentence in kept))
        columns["count"].append(len(kept))
    return columns


def tokenize(
    dataset: Dataset, tokenizer: Any, max_length: int, *, per_sentence: bool = False, num_workers: int | None = None
) -> Dataset:
    """Add the columns of :func:`encode_documents` to a table with the columns ``sentences`` and ``origin``.

    The result is a table on disk; if the same was asked for before, it is that of then.

    Args:
        dataset: the documents.
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens per input, markers included.
        per_sentence: as in :func:`encode_documents`.
        num_workers: processes that share the work, if there is enough of it; None for this one alone.

    Raises:
        UserError: as :func:`encode_documents`, and if a process was killed.
    """
    key = None
    if is_kept(dataset):
        versions = (__version__, TOKENIZING, tokenizers.__version__, transformers.__version__)
        settings = (tokenizer_digest(tokenizer), max_length, per_sentence)
        key = digest(versions, dataset._fingerprint, settings)
    schema = dataset.features.arrow_schema
    for field in TOKEN_COLUMNS:
        schema = schema.append(field)
    encode = _Encoder(dataset.with_format("arrow"), tokenizer, max_length, per_sentence, schema)
    starts = range(0, len(dataset), ROWS_AT_ONCE)
    alone = (num_workers or 1) == 1 or len(dataset) < WORTH_PROCESSES

    def make(notes: list[str]) -> Iterator[pa.RecordBatch]:
        if alone:
            return map(encode, starts)
        messages = in_processes(encode.message, starts, num_workers or 1)
        return (pa.ipc.read_record_batch(pa.py_buffer(message), schema) for message in messages)

    return stored_table(key, schema, make, "tokenizing").table


@dataclass(frozen=True)
class _Encoder:
    """The rows of a table from one on, tokenised."""

    table: Dataset
    tokenizer: Any
    max_length: int
    per_sentence: bool
    schema: pa.Schema

    def __call__(self, start: int) -> pa.RecordBatch:
        rows: pa.Table = self.table[start : start + ROWS_AT_ONCE]
        sentences, names = rows["sentences"].to_pylist(), rows["origin"].to_pylist()
        found = encode_documents(sentences, self.tokenizer, self.max_length, names, per_sentence=self.per_sentence)
        columns = [pa.array(found[field.name], field.type) for field in TOKEN_COLUMNS]
        given = [column.combine_chunks() for column in rows.columns]
        return pa.RecordBatch.from_arrays([*given, *columns], schema=self.schema)

    def message(self, start: int) -> bytes:
        """The same, to be sent to another process; pickle would send all that the rows are a slice of."""
        return self(start).serialize().to_pybytes()  # type: ignore[no-any-return]


def tokenizer_digest(tokenizer: Any) -> str:
    """What changes when a tokenizer may give other tokens, and not by its use, as the hash of the object does."""
    special = tuple(sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items()))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        saved = json.loads(backend.to_str())
        saved["truncation"] = saved["padding"] = None  # which each call sets as it likes
        return digest(type(tokenizer).__name__, special, json.dumps(saved, sort_keys=True))
    with tempfile.TemporaryDirectory() as folder:  # one that is written in Python
        tokenizer.save_pretrained(folder)
        files = tuple((file.name, file.read_bytes()) for file in sorted(Path(folder).iterdir()))
    return digest(type(tokenizer).__name__, special, files)


def describe_cuts(columns: Mapping[str, Any] | Dataset, *, what: str = "documents") -> str | None:
    """One sentence about what did not fit into the encoder's window; None if everything did.

    Args:
        columns: with ``cut`` and ``length`` of :func:`encode_documents`.
        what: what each of its rows is.
    """
    cut, lengths = (
        numbers(columns, name) if isinstance(columns, Dataset) else np.asarray(columns[name])
        for name in ("cut", "length")
    )
    if not cut.any():
        return None
    tokens = int(lengths.sum() + cut.sum())
    return (
        f"{int((cut > 0).sum())} of {len(cut)} {what} do not fit into the encoder's window: {int(cut.sum())} of "
        f"{tokens} tokens were cut from their longest sentences (no sentence was dropped)."
    )

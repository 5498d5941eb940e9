"""Tokenise each sentence once, and cut documents to the encoder's length without dropping a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..errors import UserError


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
        markers) and ``cut`` (tokens that were cut off).

    Raises:
        UserError: if a document has so many sentences that not even a marker and one token each fit.
    """
    most = max_length // 2
    for number, sentences in enumerate(documents):
        if len(sentences) > most and not per_sentence:
            raise UserError(
                f"{names[number] if names else f'documents[{number}]'}: has {len(sentences)} sentences, and an encoder "
                f"of {max_length} tokens takes {most} at most. Split the document, use an encoder with a longer "
                "window, or train with --backbone hierarchical, which takes any number."
            )
    # White space at the edge of a sentence would tell byte-level tokenizers where it was cut from its text.
    flat = [sentence.strip() for sentences in documents for sentence in sentences]
    encoded: list[list[int]] = (
        tokenizer(
            flat,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,  # a text that talks of [SEP] means the letters
            verbose=False,
        )["input_ids"]
        if flat
        else []
    )
    columns: dict[str, list[Any]] = {"sentence_ids": [], "length": [], "cut": []}
    start = 0
    for sentences in documents:
        ids = encoded[start : start + len(sentences)]
        start += len(sentences)
        budget = max_length if per_sentence else fair_budget([len(sentence) + 1 for sentence in ids], max_length)
        kept = [sentence[: budget - 1] for sentence in ids]
        columns["sentence_ids"].append(kept)
        columns["length"].append(sum(len(sentence) + 1 for sentence in kept))
        columns["cut"].append(sum(len(sentence) for sentence in ids) - sum(len(sentence) for sentence in kept))
    return columns


def tokenize(dataset: Dataset, tokenizer: Any, max_length: int, *, per_sentence: bool = False) -> Dataset:
    """Add the columns of :func:`encode_documents` to a table with the columns ``sentences`` and ``origin``.

    Raises:
        UserError: as :func:`encode_documents`.
    """
    return dataset.map(
        lambda rows: encode_documents(
            rows["sentences"], tokenizer, max_length, rows["origin"], per_sentence=per_sentence
        ),
        batched=True,
        # The function holds a tokenizer, whose hash changes as it is used: tables in memory need no fingerprint of it.
        new_fingerprint=f"{dataset._fingerprint}-{max_length}-{per_sentence}",
    )


def describe_cuts(columns: Mapping[str, Any] | Dataset) -> str | None:
    """One sentence about what did not fit into the encoder's window; None if everything did.

    Args:
        columns: with ``cut`` and ``length`` of :func:`encode_documents`.
    """
    cut = np.asarray(columns["cut"][:], dtype=np.int64)
    if not cut.any():
        return None
    tokens = int(np.asarray(columns["length"][:], dtype=np.int64).sum() + cut.sum())
    return (
        f"{int((cut > 0).sum())} of {len(cut)} documents do not fit into the encoder's window: {int(cut.sum())} of "
        f"{tokens} tokens were cut from their longest sentences (no sentence was dropped)."
    )

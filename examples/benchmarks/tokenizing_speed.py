"""How fast documents become token ids, beside the tokenizer alone, and token ids become batches.

    python examples/benchmarks/tokenizing_speed.py [--sentences 16000] [--rounds 7] [--model_name_or_path NAME]
        [--output PREFIX]

Three take turns in one process, on the same bundled sentences, no two of which are alike: the tokenizer itself on one
list of all sentences (no special tokens, no padding, no truncation), ``encode_documents``, which also cuts documents to
the encoder's window, and ``tokenize``, which writes what comes of it into an Arrow table on the disk (and takes none
from the cache). Prints a Markdown table: sentences a second (median over rounds, least and most), and the median ratio,
within a round, to the tokenizer alone.

A second table has the milliseconds that each collator takes to make a batch of eight documents of their token ids: to
shuffle, join and pad them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import contest
from datasets import Dataset

from sentorder.command_line import run_command
from sentorder.data.collation import Collator, EncodedDocument, JointCollator, SentenceCollator
from sentorder.data.document_tables import documents_of, to_dataset
from sentorder.data.sampling import PlannedDocument
from sentorder.data.sources import load_split
from sentorder.data.tokenization import encode_documents, tokenize
from sentorder.encoders import load_tokenizer, resolve_encoder
from sentorder.errors import UserError

WINDOW = 512
BATCH = 8
ALONE = "the tokenizer alone"
COLLATORS: dict[str, type[Collator]] = {"joint": JointCollator, "hierarchical": SentenceCollator}
"""By a backbone that uses it."""


def documents_with(sentences: int) -> Dataset:
    """The first bundled documents that have so many sentences together, in memory, so that nothing is cached."""
    chosen, seen = [], set[str]()
    for document in documents_of(load_split("stories", "train")[0]):
        if len(seen) >= sentences:
            return to_dataset(chosen)
        if seen.isdisjoint(document.sentences):
            chosen.append(document)
            seen.update(document.sentences)
    raise UserError(f"--sentences {sentences}: there are only {len(seen)} bundled ones to train on.")


def tokenizing(table: Dataset, tokenizer: Any, rounds: int) -> list[dict[str, Any]]:
    """The rows of the first table."""
    documents: list[list[str]] = table["sentences"][:]
    sentences = [sentence for document in documents for sentence in document]

    def alone() -> list[list[int]]:
        found: list[list[int]] = tokenizer(
            sentences,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return found

    systems: dict[str, Callable[[], Any]] = {
        ALONE: alone,
        "encode_documents": lambda: encode_documents(documents, tokenizer, WINDOW, per_sentence=True),
        "tokenize, to a table on the disk": lambda: tokenize(table, tokenizer, WINDOW, per_sentence=True),
    }
    # Before anything is timed: all of them come to the same ids.
    wanted = alone()
    for name in list(systems)[1:]:
        if [ids for document in systems[name]()["sentence_ids"] for ids in document] != wanted:
            raise RuntimeError(f"{name}: gives other ids than the tokenizer.")
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(1, rounds + 1):
        for name, system in systems.items():
            started = time.perf_counter()
            system()
            speeds[name].append(len(sentences) / (time.perf_counter() - started))
        contest.tell(f"round {number} of {rounds}")
    ratios = {name: contest.ratios(speed, speeds[ALONE]) for name, speed in speeds.items()}
    return [
        {
            "system": name,
            "sentences_per_second": speed,
            "median": statistics.median(speed),
            "ratio": statistics.median(ratios[name]),
        }
        for name, speed in speeds.items()
    ]


def collating(table: Dataset, tokenizer: Any, rounds: int) -> list[dict[str, Any]]:
    """The rows of the second table: in each round the batches are those of an epoch of its own."""
    columns = encode_documents(table["sentences"][:], tokenizer, WINDOW, per_sentence=True)
    ids = columns["sentence_ids"]
    starts = range(0, len(ids), BATCH)
    milliseconds: dict[str, list[float]] = {name: [] for name in COLLATORS}
    for epoch in range(rounds):
        for name, kind in COLLATORS.items():
            collate = kind(tokenizer.cls_token_id, tokenizer.pad_token_id, seed=0)
            batches = [
                [
                    EncodedDocument(PlannedDocument(epoch, row, 1.0), ids[row])
                    for row in range(start, min(start + BATCH, len(ids)))
                ]
                for start in starts
            ]
            started = time.perf_counter()
            for batch in batches:
                collate(batch)
            milliseconds[name].append(1000 * (time.perf_counter() - started) / len(batches))
    return [
        {"backbone": name, "milliseconds": taken, "median": statistics.median(taken)}
        for name, taken in milliseconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model_name_or_path", help="Whose tokenizer (default: that of all-MiniLM-L6-v2).")
    contest.add_output(parser)
    given = parser.parse_args()
    if given.sentences < 1 or given.rounds < 1:
        raise UserError("--sentences and --rounds must be at least 1.")
    table = documents_with(given.sentences)
    tokenizer = load_tokenizer(resolve_encoder(given.model_name_or_path).path)
    speeds = tokenizing(table, tokenizer, given.rounds)
    batches = collating(table, tokenizer, given.rounds)
    of_speeds = contest.markdown(
        ("tokenising", "sentences/s: median (min to max)", "ratio to the tokenizer alone"),
        [[row["system"], contest.spread(row["sentences_per_second"], ",.0f"), f"{row['ratio']:.2f}"] for row in speeds],
    )
    of_batches = contest.markdown(
        (f"collating {BATCH} documents for the backbone", "ms/batch: median (min to max)"),
        [[row["backbone"], contest.spread(row["milliseconds"], ".3f")] for row in batches],
    )
    values = {
        "tokenizing": speeds,
        "collating": batches,
        "documents": len(table),
        "sentences": sum(map(len, table["sentences"])),
    }
    machine = contest.machine()
    contest.publish(given.output, f"{of_speeds}\n\n{of_batches}", values, machine=machine, others=["tokenizers"])


if __name__ == "__main__":
    run_command(main)

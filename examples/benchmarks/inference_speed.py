"""Documents put into order per second: a cross-encoder that reads each pair of sentences, and this library.

    python examples/benchmarks/inference_speed.py [--sentences 5 20] [--documents 64 16] [--rounds 5]
        [--model_name_or_path NAME] [--output PREFIX]

From texts to orders, so tokenising counts. All systems have the same encoder and an untrained head (what an order is
worth costs no time), and the same documents: bundled sentences by chance, as many in each as asked for. The
cross-encoder reads ``[CLS] a [SEP] b [SEP]`` for each two sentences once, in batches of pairs of like length, and finds
orders from its logits by the search that the library has too: exact up to 14 sentences. ``sentorder`` is the default
method and ``sentorder, pairwise`` the one that gives each pair a logit as well, both as ``python -m sentorder.predict``
runs them.

Prints a Markdown table: documents a second (median over rounds, least and most), and the median ratio, within a round,
to the cross-encoder. The contestants are processes that take turns (see ``contest.py``); in a turn each orders all
documents, the faster ones ``--repeats`` times.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
from collections.abc import Callable
from typing import Any

import contest
import numpy as np
import torch

from sentorder import SentenceOrderer
from sentorder.command_line import run_command
from sentorder.data.sources import load_split
from sentorder.encoders import load_tokenizer, resolve_encoder
from sentorder.errors import UserError
from sentorder.order_search import best_orders
from sentorder.runtime import accelerator_for

Documents = list[list[str]]
Orders = list[list[int]]
PAIRS, PAIRS_ON_A_GPU = 32, 512
"""In a batch of the cross-encoder; from 8 to 128 it is about as fast on a CPU. On a GPU few leave it idle."""
CROSS = "pair cross-encoder"


def made_up(number: int, sentences: int) -> Documents:
    """So many documents of bundled sentences, the same each time."""
    known = [sentence for document in load_split("stories", "train")[0]["sentences"] for sentence in document]
    if sentences > len(known):
        raise UserError(f"--sentences {sentences}: there are {len(known)} bundled ones.")
    chance = random.Random(sentences)
    return [chance.sample(known, sentences) for _ in range(number)]


# --- the systems ------------------------------------------------------------------------------------------------------


class CrossEncoder:
    """Reads each two sentences of a document together, once."""

    def __init__(self, name: str | None, device: torch.device) -> None:
        from transformers import AutoModelForSequenceClassification

        source = resolve_encoder(name).path
        self.tokenizer = load_tokenizer(source)
        torch.manual_seed(0)
        self.model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).to(device).eval()
        self.device = device
        self.batch = PAIRS if device.type == "cpu" else PAIRS_ON_A_GPU
        self.window = int(self.model.config.max_position_embeddings)

    @torch.inference_mode()
    def order(self, documents: Documents) -> Orders:
        """Indices into the sentences of each document, in the order found."""
        places = [
            (number, first, second)
            for number, document in enumerate(documents)
            for first, second in itertools.combinations(range(len(document)), 2)
        ]
        texts = [(documents[number][first], documents[number][second]) for number, first, second in places]
        encoded = self.tokenizer(
            *map(list, zip(*texts, strict=True)), truncation="longest_first", max_length=self.window
        )
        by_length = sorted(range(len(places)), key=lambda pair: -len(encoded["input_ids"][pair]))
        logits = np.zeros(len(places))
        for start in range(0, len(places), self.batch):
            chosen = by_length[start : start + self.batch]
            columns = {name: [values[pair] for pair in chosen] for name, values in encoded.items()}
            batch = self.tokenizer.pad(columns, return_tensors="pt").to(self.device)
            logits[chosen] = self.model(**batch).logits[:, 0].float().cpu().numpy()
        scores = [np.zeros((len(document), len(document))) for document in documents]
        for (number, first, second), logit in zip(places, logits, strict=True):
            scores[number][first, second], scores[number][second, first] = logit / 2, -logit / 2
        found = best_orders(np.stack(scores))  # all documents have as many sentences
        return [orders[0].tolist() for orders in found.orders]


def ours(name: str | None, device: torch.device, method: str | None) -> Callable[[Documents], Orders]:
    """What ``sentorder.predict`` would do."""
    chosen = {} if method is None else {"method": method}
    model = SentenceOrderer.from_encoder(name, **chosen).to(device)
    return lambda documents: [found.order for found in model.order(documents)]


SYSTEMS: dict[str, Callable[[str | None, torch.device], Callable[[Documents], Orders]]] = {
    CROSS: lambda name, device: CrossEncoder(name, device).order,
    "sentorder": lambda name, device: ours(name, device, None),
    "sentorder, pairwise": lambda name, device: ours(name, device, "pairwise"),
}


def contend(system: str, sentences: int, number: int, name: str | None, threads: int | None) -> None:
    """Put the documents into order whenever told to."""
    with accelerator_for(mixed_precision=None, cpu_threads=threads) as accelerator:
        synchronize = None if accelerator.device.type == "cpu" else torch.accelerator.synchronize
        turns = contest.Turns(synchronize)
        documents = made_up(number, sentences)
        order = SYSTEMS[system](name, accelerator.device)
        turns.wait()
        while True:
            orders = order(documents)
            if any(sorted(found) != list(range(sentences)) for found in orders):
                raise RuntimeError(f"{system}: what came back are not orders.")
            turns.count(documents=len(orders), threads=torch.get_num_threads())


# --- the comparison ---------------------------------------------------------------------------------------------------


def compare(sentences: int, number: int, given: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows for documents of one length, and all turns."""
    command = [sys.executable, __file__, "--sentences", str(sentences), "--documents", str(number)]
    for option in ("model_name_or_path", "cpu_threads"):
        if (value := getattr(given, option)) is not None:
            command += [f"--{option}", str(value)]
    pieces = {system: 1 if system == CROSS else given.repeats for system in SYSTEMS}
    turns = contest.take_turns(
        {system: [*command, "--contestant", system] for system in SYSTEMS},
        pieces,
        rounds=given.rounds,
        warm_up=dict.fromkeys(SYSTEMS, 1),
    )
    speeds = {system: contest.rates(played) for system, played in turns.items()}
    rows = []
    for system, found in speeds.items():
        ratios = contest.ratios(found, speeds[CROSS])
        rows.append(
            {
                "sentences": sentences,
                "system": system,
                "documents_per_second": found,
                "median": statistics.median(found),
                "ratios": ratios,
                "ratio": statistics.median(ratios),
                "threads": int(turns[system][0]["threads"] / pieces[system]),
            }
        )
    return rows, turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, nargs="+", default=[5, 20], metavar="N")
    parser.add_argument("--documents", type=int, nargs="+", default=[64, 16], help="For each of --sentences.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="Of the faster systems in a turn.")
    parser.add_argument("--model_name_or_path", help="An encoder (default: all-MiniLM-L6-v2).")
    parser.add_argument("--cpu_threads", type=int, help="As of sentorder.predict.")
    parser.add_argument("--contestant", choices=SYSTEMS, help=argparse.SUPPRESS)
    contest.add_output(parser)
    given = parser.parse_args()
    if len(given.documents) != len(given.sentences):
        raise UserError("--documents: give one number for each of --sentences.")
    if min(given.sentences) < 2 or min(*given.documents, given.rounds, given.repeats) < 1:
        raise UserError("--sentences must be at least 2; --documents, --rounds and --repeats at least 1.")
    if given.contestant is not None:
        contend(given.contestant, given.sentences[0], given.documents[0], given.model_name_or_path, given.cpu_threads)
    rows: list[dict[str, Any]] = []
    turns = {}
    for sentences, number in zip(given.sentences, given.documents, strict=True):
        more, turns[sentences] = compare(sentences, number, given)
        rows += more
    table = contest.markdown(
        ("sentences", "system", "documents/s: median (min to max)", "ratio to the cross-encoder"),
        [
            [str(row["sentences"]), row["system"], contest.spread(row["documents_per_second"]), f"{row['ratio']:.2f}"]
            for row in rows
        ],
    )
    values = {"rows": rows, "turns": turns, "documents": dict(zip(given.sentences, given.documents, strict=True))}
    contest.publish(given.output, table, values, machine=contest.machine(rows[0]["threads"]))


if __name__ == "__main__":
    run_command(main)

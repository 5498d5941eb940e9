"""What a source of many documents costs before and while it trains: seconds, documents a second, memory.

    python examples/benchmarks/data_scale.py [10000 100000 1000000] [--sentences 5] [--workers 2]

Each size is a JSON-lines file of documents that are made up of bundled sentences, and each row of the table a process
of its own, with a cache that is empty at first: reading, reading again (from the cache), tokenising, tokenising again,
what a training run loads, and tokenising with several processes (``--workers 1``: not). Prints a Markdown table.
``anonymous`` is what the process holds itself, at most and before it began; the rest of what is resident are pages of
mapped files, which the system takes back when it wants them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

COLUMNS = ("documents", "step", "seconds", "documents/s", "resident, MB", "anonymous, MB", "before, MB")
MAX_LENGTH = 512
LOOK_EVERY = 0.05
"""Seconds between two looks at the memory."""
LOADED = 100_000
"""At most so many documents go through the loader."""


# --- one step, in a process of its own --------------------------------------------------------------------------------


class Memory:
    """The most memory of this process in a block: all that is resident, and the anonymous part, in MB."""

    def __enter__(self) -> Memory:
        self.resident = self.anonymous = 0.0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while True:
            resident, anonymous = now()
            self.resident, self.anonymous = max(self.resident, resident), max(self.anonymous, anonymous)
            if self.done.wait(LOOK_EVERY):
                return


def now() -> tuple[float, float]:
    """Resident and anonymous memory in MB; the latter is not a number where the system does not say."""
    try:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return tuple(int(status[name].split()[0]) / 1e3 for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]
    except (OSError, KeyError):
        return psutil.Process().memory_info().rss / 1e6, float("nan")


def measure(step: str, file: str, workers: int) -> dict[str, float]:
    """Do one step. What it needs is in the cache already; importing is not measured."""
    from sentorder.data.collation import JointCollator, ordering_loader
    from sentorder.data.sampling import GlobalPlan
    from sentorder.data.sources import load_splits
    from sentorder.data.splitting import numbers
    from sentorder.data.tokenization import tokenize
    from sentorder.encoders import load_tokenizer, resolve_encoder

    tokenizer = load_tokenizer(resolve_encoder(None).path)
    table = None if step == "read" else load_splits(f"train={file}").splits["train"]
    if step == "load":
        table = tokenize(table, tokenizer, MAX_LENGTH)
    _, before = now()
    with Memory() as memory:
        started = time.perf_counter()
        if step == "read":
            documents = len(load_splits(f"train={file}").splits["train"])
        elif step == "tokenize":
            documents = len(tokenize(table, tokenizer, MAX_LENGTH, num_workers=workers))
        else:
            documents = 0
            plan = GlobalPlan(numbers(table, "length"), 8, seed=0)
            collator = JointCollator(tokenizer.cls_token_id, tokenizer.pad_token_id, seed=0)
            for batch in ordering_loader(table, plan, collator):
                documents += len(batch["document_ids"])
                if documents >= LOADED:
                    break
        seconds = time.perf_counter() - started
    memories = {"resident": memory.resident, "anonymous": memory.anonymous, "before": before}
    return {"documents": documents, "seconds": seconds, **memories}


# --- all of them ------------------------------------------------------------------------------------------------------


def write_documents(path: Path, number: int, sentences: int) -> None:
    """So many sentences by chance in each; hardly two are alike."""
    from sentorder.data.sources import load_split

    known = [sentence for document in load_split("stories", "train")[0]["sentences"] for sentence in document]
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for document in range(number):
            file.write(json.dumps({"id": str(document), "sentences": chance.choices(known, k=sentences)}) + "\n")


def in_a_process(step: str, file: Path, workers: int, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step, "--file", str(file), "--workers", str(workers)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache)}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], metavar="DOCUMENTS")
    parser.add_argument("--sentences", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", choices=("read", "tokenize", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step is not None:
        print(json.dumps(measure(given.step, given.file, given.workers)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            file, cache, other = Path(folder) / "made-up.jsonl", Path(folder) / "cache", Path(folder) / "other"
            write_documents(file, size, given.sentences)
            rows = [
                ("read", "read", 1, cache),
                ("read again", "read", 1, cache),
                ("tokenise", "tokenize", 1, cache),
                ("tokenise again", "tokenize", 1, cache),
                ("load for training", "load", 1, cache),
            ]
            if given.workers > 1:
                rows.append((f"tokenise, {given.workers} processes", "tokenize", given.workers, other))
            for title, step, workers, place in rows:
                found = in_a_process(step, file, workers, place)
                cells = [f"{size:,}", title, f"{found['seconds']:.2f}", f"{found['documents'] / found['seconds']:,.0f}"]
                cells += [f"{found[kind]:,.0f}" for kind in ("resident", "anonymous", "before")]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

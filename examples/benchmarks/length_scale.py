"""What one long document costs: seconds and memory to put n sentences into order.

    python examples/benchmarks/length_scale.py [50 100 200 500 1000] [--method NAME] [--backbone NAME]
        [--piece_length N]

Each size is a document of so many bundled sentences, by chance, ordered by an untrained model in a process of its own;
``search`` is the part of the time that decoding takes once the model has said what it has to say. Prints a Markdown
table. Memory is what the process holds itself (anonymous), at most and before it began.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time

from data_scale import Memory, now

COLUMNS = ("sentences", "tokens", "seconds", "search, seconds", "memory, MB", "before, MB")


def measure(sentences: int, method: str | None, backbone: str | None, piece_length: int | None) -> dict[str, float]:
    """Order one document of so many sentences."""
    from sentorder import SentenceOrderer
    from sentorder.data.sources import load_split
    from sentorder.modeling import SentenceOrdererConfig

    known = [sentence for document in load_split("stories", "train")[0]["sentences"] for sentence in document]
    document = random.Random(0).sample(known, sentences)
    model = SentenceOrderer.from_encoder(method=method or SentenceOrdererConfig.method, backbone=backbone)
    model.set_decoding(piece_length=piece_length)
    model.order([document[:5]])  # whatever is only done once
    searched = 0.0
    decode = model.decode

    def timed_decode(*given: object, **named: object) -> object:
        nonlocal searched
        started = time.perf_counter()
        found = decode(*given, **named)  # type: ignore[arg-type]
        searched += time.perf_counter() - started
        return found

    model.decode = timed_decode  # type: ignore[assignment, method-assign]
    tokens = sum(len(ids) + 1 for ids in model.tokenizer(document, add_special_tokens=False)["input_ids"])
    _, before = now()
    with Memory() as memory:
        started = time.perf_counter()
        model.order([document])
        seconds = time.perf_counter() - started
    return {"tokens": tokens, "seconds": seconds, "search": searched, "memory": memory.anonymous, "before": before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[50, 100, 200, 500, 1000], metavar="SENTENCES")
    parser.add_argument("--method")
    parser.add_argument("--backbone")
    parser.add_argument("--piece_length", type=int)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.sizes[0], given.method, given.backbone, given.piece_length)))
        return
    options = [
        word
        for name in ("method", "backbone", "piece_length")
        if (value := getattr(given, name)) is not None
        for word in (f"--{name}", str(value))
    ]
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for size in given.sizes:
        command = [sys.executable, __file__, str(size), "--alone", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:  # it has said why
            sys.exit(done.returncode)
        found = json.loads(done.stdout.splitlines()[-1])
        cells = [f"{size:,}", f"{found['tokens']:,}", f"{found['seconds']:.2f}", f"{found['search']:.2f}"]
        print(f"| {' | '.join([*cells, *(f'{found[kind]:,.0f}' for kind in ('memory', 'before'))])} |", flush=True)


if __name__ == "__main__":
    main()

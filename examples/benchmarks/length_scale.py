"""What one long document costs: seconds and memory to put n sentences into order.

    python examples/benchmarks/length_scale.py [50 100 200 500 1000] [--method NAME] [--backbone NAME]
        [--piece_length N] [--tokens 16] [--training] [--picture FILE.png]

Each size is a document of so many bundled sentences, by chance, ordered by an untrained model in a process of its own;
the search in it is the part of the time that decoding takes once the model has said what it has to say. ``--training``
also measures a whole step on that document alone, which takes far more memory. With ``--tokens`` all sentences have so
many tokens with their marker, so that length is the number of sentences alone. Times are medians of three. Prints a
Markdown table, and ``--picture`` draws the times as curves. Memory is what the process holds itself (anonymous) to find
the order, at most and before it began.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data_scale import Memory, now

from sentorder.charts import new_figure
from sentorder.command_line import run_command
from sentorder.errors import UserError

TIMES = {"seconds": "putting into order", "search": "the search in it", "training": "a training step"}
REPETITIONS = 3


def measure(
    sentences: int, method: str | None, backbone: str | None, piece_length: int | None, tokens: int | None, train: bool
) -> dict[str, float]:
    """Order one document of so many sentences, and train on it if asked to."""
    from sentorder import SentenceOrderer
    from sentorder.data.collation import ordering_loader
    from sentorder.data.document_tables import to_dataset
    from sentorder.data.documents import Document
    from sentorder.data.sampling import GlobalPlan
    from sentorder.data.sources import load_split
    from sentorder.loop import train_steps
    from sentorder.modeling import SentenceOrdererConfig
    from sentorder.optimization import adamw, parameter_groups
    from sentorder.runtime import accelerator_for

    with accelerator_for(mixed_precision=None, cpu_threads=None) as accelerator:
        known = [sentence for document in load_split("stories", "train")[0]["sentences"] for sentence in document]
        model = SentenceOrderer.from_encoder(method=method or SentenceOrdererConfig.method, backbone=backbone)
        model.to(accelerator.device).set_decoding(piece_length=piece_length)
        lengths = [len(ids) + 1 for ids in model.tokenizer(known, add_special_tokens=False)["input_ids"]]
        if tokens is not None:
            known = [sentence for sentence, length in zip(known, lengths, strict=True) if length == tokens]
        if len(known) < sentences:
            raise UserError(f"{sentences} sentences: there are only {len(known)} of such a length.")
        document = random.Random(0).sample(known, sentences)
        searched = 0.0
        decode = model.decode

        def timed_decode(*given: object, **named: object) -> object:
            nonlocal searched
            started = time.perf_counter()
            found = decode(*given, **named)  # type: ignore[arg-type]
            searched += time.perf_counter() - started
            return found

        model.decode = timed_decode  # type: ignore[assignment, method-assign]
        model.order([document[:5]])  # whatever is only done once
        _, before = now()
        ordering, searching = [], []
        with Memory() as memory:
            for _ in range(REPETITIONS):
                searched, started = 0.0, time.perf_counter()
                model.order([document])
                ordering.append(time.perf_counter() - started)
                searching.append(searched)

        table = model.tokenize(to_dataset([Document("document", document)]))
        length = int(table["length"][0])
        found = {
            "tokens": length,
            "seconds": statistics.median(ordering),
            "search": statistics.median(searching),
            "memory": memory.anonymous,
            "before": before,
        }
        if not train:
            return found
        loader = accelerator.prepare(ordering_loader(table, GlobalPlan([length], 1, seed=0), model.collator(seed=0)))
        model, optimizer = accelerator.prepare(model, adamw(parameter_groups(model, learning_rate=0, weight_decay=0)))
        loss = accelerator.unwrap_model(model).method.training_loss
        training, started = [], time.perf_counter()
        for _ in train_steps(accelerator, model, optimizer, None, loader, loss, max_steps=REPETITIONS + 1):
            training.append(time.perf_counter() - started)
            started = time.perf_counter()
        return found | {"training": statistics.median(training[1:])}


def draw(path: Path, sizes: Sequence[int], found: Sequence[dict[str, float]]) -> None:
    """The times against the number of sentences."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    for name, label in TIMES.items():
        if name in found[0]:
            axes.plot(sizes, [row[name] for row in found], marker="o", label=label)
    axes.set(xlabel="sentences of the document", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[50, 100, 200, 500, 1000], metavar="SENTENCES")
    parser.add_argument("--method")
    parser.add_argument("--backbone")
    parser.add_argument("--piece_length", type=int)
    parser.add_argument("--tokens", type=int, help="Of each sentence, with its marker (without it: as they come).")
    parser.add_argument("--training", action="store_true", help="Train on each document as well.")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="Draw the times (needs the extra plot).")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.picture is not None:
        new_figure(1, 1)  # is there what it takes?
    if given.alone:
        size = given.sizes[0]
        print(json.dumps(measure(size, given.method, given.backbone, given.piece_length, given.tokens, given.training)))
        return
    options = [
        word
        for name in ("method", "backbone", "piece_length", "tokens")
        if (value := getattr(given, name)) is not None
        for word in (f"--{name}", str(value))
    ]
    options += ["--training"] * given.training
    times = {name: label for name, label in TIMES.items() if name != "training" or given.training}
    columns = ["sentences", "tokens", *(f"{label}, s" for label in times.values()), "memory, MB", "before, MB"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    rows = []
    for size in given.sizes:
        command = [sys.executable, __file__, str(size), "--alone", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:  # it has said why
            sys.exit(done.returncode)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(found)
        cells = [f"{size:,}", f"{found['tokens']:,}"]
        cells += [f"{found[kind]:.2f}" for kind in times]
        print(f"| {' | '.join([*cells, *(f'{found[kind]:,.0f}' for kind in ('memory', 'before'))])} |", flush=True)
    if given.picture is not None:
        draw(given.picture, given.sizes, rows)


if __name__ == "__main__":
    run_command(main)

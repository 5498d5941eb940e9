"""Whether memory grows with the steps of a training, and with the documents of an evaluation.

    python examples/benchmarks/memory_growth.py [--steps 10000] [--every 1000] [--documents 1000 4000 16000]
        [--output PREFIX]

On the CPU, with a random BERT of two layers and width 32 that is made here, so that what the library keeps would show.
Training goes through :func:`sentorder.loop.train_steps` over the bundled documents (4 to 12 sentences, so batches
differ in shape all the time), and the memory of the process is read every so many steps; those before the first look
warm it up.
Evaluations are a process each, of bundled documents that are repeated with their sentences shuffled, from a JSON-lines
file.

Prints two Markdown tables in MB of anonymous memory, which is what a process holds itself, without pages of mapped
files: after so many steps, and above that of the first row; and for so many documents before an evaluation, at most
during it, and the difference. A sentence below each says by how much it grew.

oneDNN, with which PyTorch computes on a CPU, keeps the kernels that it has made for each new shape, and ragged batches
have many: the library lets it keep 64 and not 1,024. ``ONEDNN_PRIMITIVE_CACHE_CAPACITY=1024`` in front of the command
measures what that saves.
"""

from __future__ import annotations

import os

os.environ["ACCELERATE_USE_CPU"] = "true"  # the memory of a GPU is another question
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the model is too small for more, and more threads are more memory

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import contest
import torch
from data_scale import Memory, now

from sentorder.command_line import run_command
from sentorder.errors import UserError

WORDS = 2000
"""Of the vocabulary; others are spelled in letters."""
BATCH, EVAL_BATCH = 8, 32
SEED = 42


def bundled() -> list[list[str]]:
    """The sentences of each bundled document to train on."""
    from sentorder.data.sources import load_split

    documents: list[list[str]] = load_split("stories", "train")[0]["sentences"][:]
    return documents


def make_encoder(folder: Path) -> None:
    """A random encoder, and a tokenizer that knows the commonest words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    texts = " ".join(sentence.lower() for document in bundled() for sentence in document)
    words = "".join(letter if letter.isalnum() else " " for letter in texts).split()
    letters = sorted(set(texts) - {" "})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    common = [word for word, _ in Counter(words).most_common(WORDS)]
    vocabulary = list(dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *common]))
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)


def write_documents(path: Path, number: int) -> None:
    """So many, with an id of their own and their sentences shuffled."""
    known, chance = bundled(), random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for index in range(number):
            sentences = list(known[index % len(known)])
            chance.shuffle(sentences)
            file.write(json.dumps({"id": str(index), "sentences": sentences}) + "\n")


# --- in a process of its own ------------------------------------------------------------------------------------------


def train(encoder: Path, steps: int, every: int) -> dict[str, Any]:
    """The anonymous memory after each so many steps."""
    from sentorder import SentenceOrderer
    from sentorder.data.collation import ordering_loader
    from sentorder.data.sampling import GlobalPlan
    from sentorder.data.sources import load_split
    from sentorder.data.splitting import numbers
    from sentorder.loop import train_steps
    from sentorder.optimization import adamw, parameter_groups, schedule
    from sentorder.runtime import accelerator_for

    with accelerator_for(mixed_precision=None, cpu_threads=1) as accelerator:
        model = SentenceOrderer.from_encoder(str(encoder), dropout=0.1)
        table = model.tokenize(load_split("stories", "train")[0])
        plan = GlobalPlan(numbers(table, "length"), BATCH, seed=SEED)
        loader = ordering_loader(table, plan, model.collator(seed=SEED))
        optimizer = adamw(parameter_groups(model, learning_rate=1e-4, weight_decay=0.01))
        scheduler = schedule("linear", optimizer, warmup_steps=0.1, total_steps=steps)
        prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        samples = []
        loss = model.method.training_loss
        for step in train_steps(accelerator, prepared, optimizer, scheduler, loader, loss, max_steps=steps):
            if step.number % every == 0:
                samples.append({"steps": step.number, "epoch": step.epoch, "anonymous_mb": now()[1]})
                contest.tell(f"step {step.number}: {samples[-1]['anonymous_mb']:.1f} MB")
        return {"samples": samples}


def evaluate(encoder: Path, file: Path) -> dict[str, Any]:
    """The memory before an evaluation, and the most during it."""
    from sentorder import SentenceOrderer
    from sentorder.data.sources import load_split
    from sentorder.evaluation import evaluate as evaluate_all
    from sentorder.evaluation import evaluation_loader
    from sentorder.runtime import accelerator_for

    with accelerator_for(mixed_precision=None, cpu_threads=1) as accelerator:
        model = SentenceOrderer.from_encoder(str(encoder))
        table = model.tokenize(load_split(str(file), None)[0])
        loader = evaluation_loader(accelerator, model, table, EVAL_BATCH)
        few = table.select(range(min(len(table), 2 * EVAL_BATCH)))  # whatever is only done once
        evaluate_all(accelerator, model, evaluation_loader(accelerator, model, few, EVAL_BATCH), few)
        _, before = now()
        with Memory() as memory:
            found = evaluate_all(accelerator, model, loader, table)
        return {
            "documents": len(found.records),
            "before_mb": before,
            "peak_mb": max(memory.anonymous, before),
            "seconds": found.seconds,
        }


# --- both of them -----------------------------------------------------------------------------------------------------


def in_a_process(cache: Path, *words: object) -> dict[str, Any]:
    """What this file prints with these arguments.

    Raises:
        UserError: if it failed; it has said why.
    """
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(
        command, env={**os.environ, "HF_DATASETS_CACHE": str(cache)}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)}: ended with exit code {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def tables(samples: list[dict[str, Any]], sizes: list[dict[str, Any]]) -> tuple[str, dict[str, float]]:
    """What is printed, and how much it grew."""
    first, last = samples[0], samples[-1]
    more = [size["peak_mb"] - size["before_mb"] for size in sizes]
    growth = {"training_mb": last["anonymous_mb"] - first["anonymous_mb"], "evaluation_mb": more[-1] - more[0]}
    trained = contest.markdown(
        ("steps", "memory, MB", "above the first, MB"),
        [
            [f"{row['steps']:,}", f"{row['anonymous_mb']:.1f}", f"{row['anonymous_mb'] - first['anonymous_mb']:+.1f}"]
            for row in samples
        ],
    )
    evaluated = contest.markdown(
        ("documents", "before, MB", "at most, MB", "more, MB"),
        [
            [f"{row['documents']:,}", f"{row['before_mb']:.1f}", f"{row['peak_mb']:.1f}", f"{above:.1f}"]
            for row, above in zip(sizes, more, strict=True)
        ],
    )
    documents = sizes[-1]["documents"] - sizes[0]["documents"]
    slope = f", {1000 * growth['evaluation_mb'] / documents:.2f} MB per 1,000 documents" if documents else ""
    told = f"From step {first['steps']:,} to {last['steps']:,}: {growth['training_mb']:+.1f} MB."
    also = f"From {sizes[0]['documents']:,} documents to {sizes[-1]['documents']:,}: {growth['evaluation_mb']:+.1f} MB"
    return "\n\n".join([trained, told, evaluated, f"{also}{slope}."]), growth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=1000, help="Steps between two looks at the memory.")
    parser.add_argument("--documents", type=int, nargs="+", default=[1000, 4000, 16_000])
    parser.add_argument("--encoder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    contest.add_output(parser)
    given = parser.parse_args()
    if given.every < 1 or given.steps < given.every or min(given.documents) < 1:
        raise UserError("--every and --documents must be at least 1, and --steps no less than --every.")
    if given.encoder is not None:
        alone = (
            train(given.encoder, given.steps, given.every)
            if given.file is None
            else evaluate(given.encoder, given.file)
        )
        print(json.dumps(alone))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder, cache = folder / "encoder", folder / "cache"
        make_encoder(encoder)
        trained = in_a_process(cache, "--encoder", encoder, "--steps", given.steps, "--every", given.every)
        sizes = []
        for number in given.documents:
            file = folder / f"{number}.jsonl"
            write_documents(file, number)
            contest.tell(f"evaluating: {number:,} documents")
            sizes.append(in_a_process(cache, "--encoder", encoder, "--file", file))
    table, growth = tables(trained["samples"], sizes)
    values = {"training": trained["samples"], "evaluation": sizes, "growth": growth}
    contest.publish(given.output, table, values, machine=contest.machine(threads=1))


if __name__ == "__main__":
    run_command(main)

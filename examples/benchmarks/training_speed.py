"""Measure how many documents a second are trained by this library's loop, and by others that do the same.

    python examples/benchmarks/training_speed.py [--tokens 57] [--mixed_precision bf16] [--output runs/training_speed]

The task is the tutorial's: from ``[CLS] s_a [CLS] s_b ...`` an encoder with one number per token regresses where each
sentence stood. All train all of its weights on the same documents, by AdamW with the gradient clipped to a norm of 1:

- ``tutorial``: its Trainer, with inputs padded to the whole window and a loss that goes through a batch row by row.
- ``trainer``: the fastest Trainer that somebody careful writes without a loop of their own.
- ``pytorch-accelerated``, ``fabric``: the same by these two, if they are there (``pip install ".[benchmarks]"``).
- ``bare``: the fewest lines that train, over batches made before the clock starts: no loop can be faster.
- ``sentorder``: ``train_steps`` with the parts that ``python -m sentorder.train`` gives it.
- ``sentorder, default``: the same with the method, backbone, dropout and batch size of the default run.

Each is a process of its own, and they take turns: a turn is one epoch, but two steps of the tutorial, where every
document costs the same. Prints a Markdown table: documents per second (the median over the rounds, least and most),
which share of the tokens that the encoder reads is padding, and how many times as fast as each of them ours is (the
median of the ratios within a round). What stands below compares the arithmetic that training cannot do without to what
plain matrix products of the same shapes reach, which take turns as well. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import collections
import functools
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from contest import Figures, Turns, add_output, machine, markdown, publish, rates, ratios, spread, take_turns, tell
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from sentorder import SentenceOrderer
from sentorder.arguments import TrainArguments
from sentorder.command_line import run_command
from sentorder.cuda_graphs import recorded_loss
from sentorder.data.collation import ordering_loader, shuffle_slots
from sentorder.data.document_tables import to_dataset
from sentorder.data.documents import Document
from sentorder.data.sampling import BLOCK_STEPS, GlobalPlan
from sentorder.data.sources import load_splits
from sentorder.data.tokenization import encode_documents
from sentorder.encoders import load_encoder, load_tokenizer, resolve_encoder, set_dropout, window_length
from sentorder.errors import UserError
from sentorder.loop import train_steps
from sentorder.optimization import adamw, parameter_groups, schedule
from sentorder.runtime import accelerator_for
from sentorder.score_losses import squared_error
from sentorder.sharding import prepare_split
from sentorder.train import LOOK_EVERY

SENTENCES = 5
"""Of each document."""
SEED = 42
RATE = 1e-4
STEPS = 1_000_000
"""More than anybody will be asked for: the schedule hardly falls, and none ends by itself."""
IGNORED = -100
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRODUCTS = "matrix product"

# --- the task ---------------------------------------------------------------------------------------------------------


class Task:
    """What all contestants are given."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.path = resolve_encoder(options.model_name_or_path).path
        self.tokenizer = load_tokenizer(self.path)
        self.dropout = 0.0 if options.dropout == "0" else None
        self.bf16 = options.mixed_precision == "bf16"
        encoder = load_encoder(self.path, dropout=None)
        self.config, self.window = encoder.config, window_length(encoder, self.tokenizer)
        layers = [module for module in encoder.modules() if isinstance(module, torch.nn.Linear)]
        self.products = [(layer.in_features, layer.out_features) for layer in layers]
        rows = load_splits("stories").splits["train"]["sentences"]
        passages = [sentences for sentences in rows if len(sentences) == SENTENCES]
        if options.tokens is not None:
            passages = self._made_up(passages)
        elif options.documents > len(passages):
            raise UserError(f"--documents {options.documents}: there are only {len(passages)}.")
        self.documents = passages[: options.documents]
        columns = encode_documents(self.documents, self.tokenizer, self.window)
        self.sentence_ids: list[list[list[int]]] = columns["sentence_ids"]
        self.lengths: list[int] = columns["length"]

    def _made_up(self, passages: Sequence[Sequence[str]]) -> list[list[str]]:
        """Documents of sentences that do not belong together, as long on average as they were asked to be."""
        sentences = list(dict.fromkeys(sentence for passage in passages for sentence in passage))
        sizes = np.array([len(ids) + 1 for ids in self.tokenizer(sentences, add_special_tokens=False)["input_ids"]])
        wanted = self.options.tokens / SENTENCES
        if not sizes.min() < wanted < sizes.max():
            raise UserError(f"--tokens {self.options.tokens}: no five sentences are that short or long on average.")
        # All sentences may occur, the more often the shorter they are: how much more often is found by bisection.
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            chances = np.exp(-middle * (sizes - wanted))
            chances /= chances.sum()
            low, high = (middle, high) if chances @ sizes > wanted else (low, middle)
        random, count = np.random.default_rng(SEED), self.options.documents
        drawn = [random.choice(len(sentences), SENTENCES, replace=False, p=chances) for _ in range(count)]
        return [[sentences[index] for index in document] for document in drawn]

    def flops_per_document(self) -> float:
        """Of the matrix products of real tokens, forward and backward: one backward is two forward."""
        linear = 2 * sum(inputs * outputs for inputs, outputs in self.products)
        attention = 4 * self.config.num_hidden_layers * self.config.hidden_size  # per token, and token that it sees
        return 3 * statistics.fmean(length * (linear + attention * length) for length in self.lengths)


class Counter:
    """Tells of each step what was in its batch, by numbers that the host knows without asking the device.

    Args:
        collate: makes a batch of documents; what it is given is counted.
        model: whose word embeddings see every token that is computed; on a GPU that is every token of the batch.
    """

    def __init__(self, turns: Turns, collate: Callable[[Any], Any], model: Any) -> None:
        self._turns, self._collate = turns, collate
        self._collated: collections.deque[tuple[int, int, int]] = collections.deque()  # loaders are a batch ahead
        self._read = 0
        if DEVICE.type == "cpu":  # a hook would keep passes from being recorded
            model.get_input_embeddings().register_forward_pre_hook(self._see)

    def __call__(self, documents: Sequence[Any]) -> Any:
        """Collate."""
        batch = self._collate(documents)
        self._collated.append((len(documents), int(batch["attention_mask"].sum()), batch["input_ids"].numel()))
        return batch

    def _see(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self._read += inputs[0].numel()

    def step_is_done(self) -> None:
        documents, real_tokens, given = self._collated.popleft()
        tokens, self._read = self._read or given, 0
        self._turns.count(documents=documents, tokens=tokens, real_tokens=real_tokens)


# --- the tutorial's model, for those who train without this library ---------------------------------------------------


def token_classifier(task: Task) -> Any:
    """The encoder with one number per token."""
    set_seed(SEED)
    config = AutoConfig.from_pretrained(task.path, num_labels=1)
    set_dropout(config, task.dropout)
    return AutoModelForTokenClassification.from_pretrained(task.path, config=config, dtype=torch.float32)


def examples(task: Task, *, per_token: bool) -> list[dict[str, list[int]]]:
    """The documents, shuffled once: labels at the markers' places among the tokens, or one after the other."""
    found = []
    for sentences in task.sentence_ids:
        order = shuffle_slots(sentences, SEED, 0)
        parts = [[task.tokenizer.cls_token_id, *sentences[index]] for index in order]
        labels = order
        if per_token:
            pairs = zip(order, parts, strict=True)
            labels = [label for index, part in pairs for label in (index, *[IGNORED] * (len(part) - 1))]
        found.append({"input_ids": [token for part in parts for token in part], "labels": labels})
    return found


def collate(pad_id: int, width: int | None, documents: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch; without a width inputs are as wide as the longest."""

    def padded(rows: list[list[int]], value: int, width: int | None) -> torch.Tensor:
        table = np.full((len(rows), width or max(map(len, rows))), value)
        for number, row in enumerate(rows):
            table[number, : len(row)] = row
        return torch.from_numpy(table)

    ids = [document["input_ids"] for document in documents]
    return {
        "input_ids": padded(ids, pad_id, width),
        "attention_mask": padded([[1] * len(row) for row in ids], 0, width),
        "labels": padded([document["labels"] for document in documents], IGNORED, None),
    }


class Grouped(LengthGroupedSampler):
    """What ``train_sampling_strategy="group_by_length"`` gives with some thousand documents: it sorts 50 batches.

    With the few of a turn here Trainer's own would sort two batches at a time, and pad four times as much.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, mega_batch_mult=BLOCK_STEPS))


def masked_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The squared errors of each document, summed; their mean over the batch."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1)
    labels = batch["labels"]
    errors = (logits.float() - labels) ** 2
    return errors.masked_fill(labels == IGNORED, 0.0).sum() / len(labels)


def row_by_row_loss(marker_id: int, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same as the tutorial computes it."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for row, ids, labels in zip(logits, batch["input_ids"], batch["labels"], strict=True):
        scores = row[ids == marker_id].squeeze(-1)
        targets = labels[labels != IGNORED][: len(scores)]
        total += torch.nn.MSELoss(reduction="sum")(scores, targets.to(scores.dtype))
    return total / len(batch["labels"])


# --- the contestants --------------------------------------------------------------------------------------------------


def with_trainer(task: Task, turns: Turns, *, tutorial: bool) -> None:
    """A Trainer with a loss of its own."""
    pad_id, marker_id = task.tokenizer.pad_token_id, task.tokenizer.cls_token_id
    model = token_classifier(task)
    counter = Counter(turns, functools.partial(collate, pad_id, task.window if tutorial else None), model)
    loss_of = functools.partial(row_by_row_loss, marker_id) if tutorial else masked_loss

    class RegressionTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
            return loss_of(model, inputs)

        def _get_train_sampler(self, *given: Any) -> Any:
            return super()._get_train_sampler(*given) if tutorial else Grouped(size, lengths=task.lengths)

    class Counting(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            counter.step_is_done()

    size = task.options.batch_size
    careful = {"optim": "adamw_torch_fused", "logging_strategy": "no", "logging_nan_inf_filter": False}
    settings = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=size,
        max_steps=STEPS,
        learning_rate=RATE,
        bf16=task.bf16,
        use_cpu=DEVICE.type == "cpu",  # else it refuses bf16 there
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        **({} if tutorial else careful),
    )
    data: Any = examples(task, per_token=not tutorial)
    trainer = RegressionTrainer(model, settings, counter, data, callbacks=[Counting()])
    turns.wait()
    trainer.train()


def with_pytorch_accelerated(task: Task, turns: Turns) -> None:
    """Its Trainer without callbacks, which would wait for the device or draw a bar."""
    from pytorch_accelerated import Trainer as AcceleratedTrainer

    model = token_classifier(task)
    counter = Counter(turns, functools.partial(collate, task.tokenizer.pad_token_id, None), model)

    class RegressionTrainer(AcceleratedTrainer):
        def _create_accelerator(self) -> Accelerator:
            return Accelerator(mixed_precision=task.options.mixed_precision)

        def calculate_train_batch_loss(self, batch: Any) -> dict[str, Any]:
            loss = masked_loss(self.model, batch)
            return {"loss": loss, "model_outputs": None, "batch_size": len(batch["labels"])}

        def _clip_gradients(self) -> None:  # its own clips each number by itself
            self._accelerator.clip_grad_norm_(self.model.parameters(), self.run_config.gradient_clip_value)

        def optimizer_zero_grad(self) -> None:  # the end of a step: its callbacks come before the backward pass
            super().optimizer_zero_grad()
            counter.step_is_done()

    trainer = RegressionTrainer(model, None, torch.optim.AdamW(model.parameters(), lr=RATE, fused=True), callbacks=())
    size = task.options.batch_size
    turns.wait()
    trainer.train(
        examples(task, per_token=True),
        num_epochs=STEPS,
        per_device_batch_size=size,
        gradient_clip_value=1.0,
        create_scheduler_fn=lambda optimizer: get_linear_schedule_with_warmup(optimizer, 0, STEPS),
        # Its own number of workers is that of the cores, which are at work already.
        train_dataloader_kwargs={"sampler": Grouped(size, lengths=task.lengths), "num_workers": 0},
        collate_fn=counter,
    )


def with_fabric(task: Task, turns: Turns) -> None:
    """A loop as Fabric's documentation has it."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=DEVICE.type, devices=1, precision="bf16-mixed" if task.bf16 else "32-true")
    fabric.launch()
    plain = token_classifier(task)
    counter = Counter(turns, functools.partial(collate, task.tokenizer.pad_token_id, None), plain)
    model, optimizer = fabric.setup(plain, torch.optim.AdamW(plain.parameters(), lr=RATE, fused=True))
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    size = task.options.batch_size
    data: Any = examples(task, per_token=True)
    sampler = Grouped(size, lengths=task.lengths)
    pinned = DEVICE.type == "cuda"
    loader = fabric.setup_dataloaders(DataLoader(data, size, sampler=sampler, collate_fn=counter, pin_memory=pinned))
    model.train()
    turns.wait()
    while True:
        for batch in loader:
            fabric.backward(masked_loss(model, batch))
            fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)  # which would wait
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            counter.step_is_done()


def parts(task: Task, turns: Turns, size: int, **of_model: Any) -> tuple[Any, ...]:
    """What ``bare`` and ``sentorder`` share: model, loader, optimizer, schedule and counter."""
    set_seed(SEED)
    model = SentenceOrderer.from_encoder(task.path, **of_model)
    table = model.tokenize(to_dataset([Document(str(row), text) for row, text in enumerate(task.documents)]))
    counter = Counter(turns, model.collator(seed=SEED), model)
    loader = ordering_loader(table, GlobalPlan(table["length"][:], size, seed=SEED), counter)  # type: ignore[arg-type]
    optimizer = adamw(parameter_groups(model, learning_rate=RATE, weight_decay=0.01))
    return model, loader, optimizer, schedule("linear", optimizer, warmup_steps=0, total_steps=STEPS), counter


def bare(task: Task, turns: Turns) -> None:
    """Nothing but what training is."""
    regression = {"method": "regression", "backbone": "joint", "dropout": task.dropout}
    model, loader, optimizer, scheduler, counter = parts(task, turns, task.options.batch_size, **regression)
    batches = []
    for epoch in range(task.options.rounds + 1):  # the first one warms up
        loader.batch_sampler.set_epoch(epoch)
        batches += list(loader)
    model.to(DEVICE).train()
    loss_of: Any = recorded_loss(squared_error)
    turns.wait()
    for batch in batches:
        batch = {name: values.to(DEVICE, non_blocking=True) for name, values in batch.items()}
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=task.bf16):
            loss = loss_of(model(**batch), batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        counter.step_is_done()


def with_sentorder(task: Task, turns: Turns, *, default: bool) -> None:
    """As in ``sentorder/train.py``."""
    settings = TrainArguments()
    size, of_model = task.options.batch_size, {"method": "regression", "backbone": "joint", "dropout": task.dropout}
    if default:
        size, of_model = settings.per_device_train_batch_size, {"dropout": settings.dropout}
        of_model |= {name: value for name in ("method", "backbone", "pooling") if (value := getattr(settings, name))}
    with accelerator_for(mixed_precision=task.options.mixed_precision, cpu_threads=task.options.threads) as accelerator:
        model, loader, optimizer, scheduler, counter = parts(task, turns, size, **of_model)
        prepared, optimizer = prepare_split(accelerator, model, optimizer, max_grad_norm=1.0)
        turns.wait()
        loader, loss_of = accelerator.prepare(loader), recorded_loss(model.method.training_loss)
        check = {"check_finite_every": 1 if DEVICE.type == "cpu" else LOOK_EVERY}
        for _ in train_steps(accelerator, prepared, optimizer, scheduler, loader, loss_of, max_steps=STEPS, **check):
            counter.step_is_done()


def matrix_products(task: Task, turns: Turns) -> None:
    """A batch through the weights of the encoder's linear layers, each by itself; a piece is all of them once."""
    kind = {"device": DEVICE, "dtype": torch.bfloat16 if task.bf16 else torch.float32}
    tokens = round(task.options.batch_size * statistics.fmean(task.lengths))
    # Weights lie in memory as those of a linear layer: in bf16 the other way round is several times as slow on a CPU.
    weights = [torch.randn(columns, rows, **kind).t() for rows, columns in task.products]
    inputs = {rows: torch.randn(tokens, rows, **kind) for rows, _ in task.products}
    outputs = {columns: torch.empty(tokens, columns, **kind) for _, columns in task.products}
    flops = sum(2 * tokens * rows * columns for rows, columns in task.products)
    turns.wait()
    while True:
        for weight in weights:
            torch.mm(inputs[weight.shape[0]], weight, out=outputs[weight.shape[1]])
        turns.count(flops=flops)


CONTESTANTS: dict[str, Callable[[Task, Turns], None]] = {
    "tutorial": functools.partial(with_trainer, tutorial=True),
    "trainer": functools.partial(with_trainer, tutorial=False),
    "pytorch-accelerated": with_pytorch_accelerated,
    "fabric": with_fabric,
    "bare": bare,
    "sentorder": functools.partial(with_sentorder, default=False),
    "sentorder, default": functools.partial(with_sentorder, default=True),
    PRODUCTS: matrix_products,
}
OURS = ("sentorder", "sentorder, default")
NEEDS = {"pytorch-accelerated": "pytorch_accelerated", "fabric": "lightning_fabric"}

# --- the contest ------------------------------------------------------------------------------------------------------


def pieces_of(name: str, options: argparse.Namespace) -> int:
    """Steps in a turn."""
    if name == PRODUCTS:
        return 5
    sizes = {"sentorder, default": TrainArguments().per_device_train_batch_size}
    steps = math.ceil(options.documents / sizes.get(name, options.batch_size))
    return min(2, steps) if name == "tutorial" else steps


def results_of(turns: dict[str, list[Figures]]) -> dict[str, dict[str, Any]]:
    """By contestant: documents a second in each turn, the share of padding, and how many times as fast ours are."""
    speeds = {name: rates(figures) for name, figures in turns.items() if name != PRODUCTS}
    results: dict[str, dict[str, Any]] = {}
    for name, speed in speeds.items():
        real, read = (sum(turn[kind] for turn in turns[name]) for kind in ("real_tokens", "tokens"))
        times = {ours: ratios(speeds[ours], speed) for ours in OURS if ours in speeds}
        results[name] = {"documents_per_second": speed, "padding": 1 - real / read, "times_as_fast": times}
    return results


def arithmetic(turns: dict[str, list[Figures]], results: dict[str, dict[str, Any]], task: Task) -> list[str]:
    """What the machine computes a second for the training, and of what it can."""
    flops = task.flops_per_document()
    lines = [
        f"A document has {statistics.fmean(task.lengths):.1f} tokens; to train on it takes {flops / 1e9:.3g} GFLOP."
    ]
    for name in ("sentorder", "bare"):
        if name in results:
            reached = [speed * flops for speed in results[name]["documents_per_second"]]
            line = f"`{name}`: {spread([value / 1e9 for value in reached], '.3g')} GFLOP/s"
            if PRODUCTS in turns:
                possible = rates(turns[PRODUCTS], "flops")
                shares = [100 * share for share in ratios(reached, possible)]
                most = spread([value / 1e9 for value in possible], ".3g")
                line += f", {spread(shares, '.0f')} % of the {most} GFLOP/s of plain matrix products"
            lines.append(f"{line}.")
    return lines


def contest(options: argparse.Namespace) -> None:
    """Let all that are installed take turns, and say what came out."""
    names = [name for name in CONTESTANTS if options.only is None or name in options.only]
    for name in [name for name in names if name in NEEDS and find_spec(NEEDS[name]) is None]:
        tell(f'{name}: left out, it is not installed; pip install ".[benchmarks]" installs it.')
        names.remove(name)
    if not set(names) - {PRODUCTS}:
        raise UserError("There is nobody to be measured.")
    task = Task(options)  # first of all, so that what is wrong with it is said once
    commands = {name: [sys.executable, __file__, *sys.argv[1:], "--contestant", name] for name in names}
    pieces = {name: pieces_of(name, options) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder  # contestants end in the middle of their work, and leave theirs behind
        turns = take_turns(commands, pieces, rounds=options.rounds, warm_up=pieces | {"tutorial": 1})
    results = results_of(turns)
    columns = [
        "contestant",
        "documents/s",
        "padding, %",
        *(f"{name}: times as fast" for name in OURS if name in results),
    ]
    rows = [
        [
            name,
            spread(result["documents_per_second"], ".3g"),
            f"{100 * result['padding']:.1f}",
            *(spread(times) for times in result["times_as_fast"].values()),
        ]
        for name, result in results.items()
    ]
    told = {name: value for name, value in vars(options).items() if name not in ("contestant", "output", "only")}
    values = {"options": told, "flops_per_document": task.flops_per_document(), "results": results, "turns": turns}
    text = "\n\n".join([markdown(columns, rows), *arithmetic(turns, results, task)])
    others = ("lightning-fabric", "pytorch-accelerated")
    publish(options.output, text, values, machine=machine(options.threads), others=others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--model_name_or_path", help="An encoder (default: all-MiniLM-L6-v2).")
    parser.add_argument("--documents", type=int, default=160, help="Of an epoch (default: 160).")
    parser.add_argument("--tokens", type=float, help="Make documents up that are so long on average.")
    parser.add_argument("--batch_size", type=int, default=16, help="Documents of a step (default: 16).")
    parser.add_argument("--mixed_precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--dropout", choices=("encoder", "0"), default="encoder", help="The encoder's own, or none.")
    parser.add_argument("--threads", type=int, default=cores, help="Of each contestant (default: all cores).")
    parser.add_argument("--rounds", type=int, default=5, help="In each of which all have a turn (default: 5).")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME", help=f"Of: {'; '.join(CONTESTANTS)}.")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    add_output(parser)
    options = parser.parse_args()
    if min(options.documents, options.batch_size, options.rounds, options.threads) < 1:
        raise UserError("--documents, --batch_size, --rounds and --threads must be at least 1.")
    if options.contestant is None:
        contest(options)
        return
    turns = Turns(torch.cuda.synchronize if DEVICE.type == "cuda" else None)
    torch.set_num_threads(options.threads)
    CONTESTANTS[options.contestant](Task(options), turns)


if __name__ == "__main__":
    run_command(main)

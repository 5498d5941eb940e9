"""What a training loop costs beside the arithmetic: milliseconds per optimizer step of a model that has next to none.

    python examples/benchmarks/loop_overhead.py [--steps 400] [--rounds 7] [--output PREFIX]

The model has 18 weights and the batches four examples; they lie in memory, collated, and all loops take them from a
DataLoader over the same list, on one thread of the CPU. Each step is the same for all: forward, loss, backward, the
norm of the gradient clipped, fused AdamW, a LambdaLR, zero_grad. The loops are bare PyTorch, the one in Accelerate's
documentation, the Trainer of transformers (without logging), and ours, which looks whether a step was finite at once
(``check_finite_every=1``, as on a CPU) or every ten steps.

Prints a Markdown table: the median over rounds of a loop's milliseconds per step, with least and most, and by how much
that is above bare PyTorch, the median of the differences within a round. A turn of a loop is ``--steps`` steps, and in
a round each loop has one (see ``contest.py``). The list has as many batches as a turn has steps, so each turn has the
end of an epoch in it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded; the contestants inherit it

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import contest
import torch
from torch import nn
from torch.utils.data import DataLoader

from sentorder.command_line import run_command
from sentorder.errors import UserError

FEATURES, CLASSES, EXAMPLES = 8, 2, 4
ENDLESS = 10**9
"""Steps: a loop ends when its process is told to."""
BARE = "bare PyTorch"


class Toy(nn.Module):
    """A linear layer, and the loss of what it gives."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.reduction = reduction

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": nn.functional.cross_entropy(self.linear(features), labels, reduction=self.reduction)}


def ready_batch(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """For a loader whose examples are batches already."""
    return batches[0]


def parts(batches: int, reduction: str = "mean") -> tuple[Toy, torch.optim.Optimizer, Any, DataLoader[Any]]:
    """What every loop is given."""
    torch.manual_seed(0)
    model = Toy(reduction)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / 1000))
    data: Any = [
        {"features": torch.randn(EXAMPLES, FEATURES), "labels": torch.randint(CLASSES, (EXAMPLES,))}
        for _ in range(batches)
    ]
    return model, optimizer, scheduler, DataLoader(data, batch_size=1, collate_fn=ready_batch)


# --- the loops --------------------------------------------------------------------------------------------------------


def bare(turns: contest.Turns, batches: int) -> None:
    model, optimizer, scheduler, loader = parts(batches)
    model.train()
    turns.wait()
    for _ in itertools.count():
        for batch in loader:
            loss = model(**batch)["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            turns.count()


def documented(turns: contest.Turns, batches: int) -> None:
    """Accelerate's, with gradient accumulation of one."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=1)
    model, optimizer, scheduler, loader = accelerator.prepare(*parts(batches))
    model.train()
    turns.wait()
    for _ in itertools.count():
        for batch in loader:
            with accelerator.accumulate(model):
                loss = model(**batch)["loss"]
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            turns.count()


def trainer(turns: contest.Turns, batches: int) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model, optimizer, scheduler, loader = parts(batches)

    class OnReadyBatches(Trainer):
        def get_train_dataloader(self) -> Any:
            return self.accelerator.prepare(loader)

    class Count(TrainerCallback):
        def on_train_begin(self, *given: Any, **named: Any) -> None:
            turns.wait()

        def on_step_end(self, *given: Any, **named: Any) -> None:
            turns.count()

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=ENDLESS,
            per_device_train_batch_size=1,
            max_grad_norm=1.0,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        OnReadyBatches(
            model, settings, train_dataset=loader.dataset, optimizers=(optimizer, scheduler), callbacks=[Count()]
        ).train()


def ours(turns: contest.Turns, batches: int, check_finite_every: int) -> None:
    from accelerate import Accelerator

    from sentorder.loop import train_steps

    accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False)
    model, optimizer, scheduler, loader = parts(batches, reduction="none")
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    turns.wait()
    for _ in train_steps(
        accelerator,
        model,
        optimizer,
        scheduler,
        loader,
        lambda output, batch: output["loss"],
        max_steps=ENDLESS,
        check_finite_every=check_finite_every,
    ):
        turns.count()


LOOPS: dict[str, Callable[[contest.Turns, int], None]] = {
    BARE: bare,
    "Accelerate, as documented": documented,
    "transformers Trainer": trainer,
    "sentorder, check_finite_every=1": lambda turns, batches: ours(turns, batches, 1),
    "sentorder, check_finite_every=10": lambda turns, batches: ours(turns, batches, 10),
}

# --- the comparison ---------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="In each turn.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contestant", choices=LOOPS, help=argparse.SUPPRESS)
    contest.add_output(parser)
    given = parser.parse_args()
    if given.steps < 1 or given.rounds < 1:
        raise UserError("--steps and --rounds must be at least 1.")
    if given.contestant is not None:
        turns = contest.Turns()
        torch.set_num_threads(1)
        LOOPS[given.contestant](turns, given.steps)
        return
    command = [sys.executable, __file__, "--steps", str(given.steps), "--contestant"]
    turns_of = contest.take_turns(
        {name: [*command, name] for name in LOOPS},
        dict.fromkeys(LOOPS, given.steps),
        rounds=given.rounds,
        warm_up=dict.fromkeys(LOOPS, given.steps),
    )
    rows = []
    for name, played in turns_of.items():
        milliseconds = [1000 * turn["seconds"] / given.steps for turn in played]
        rows.append({"loop": name, "milliseconds": milliseconds})
        over = [own - other for own, other in zip(milliseconds, rows[0]["milliseconds"], strict=True)]
        rows[-1] |= {"median": statistics.median(milliseconds), "over_bare": statistics.median(over)}
    table = contest.markdown(
        ("loop", "ms/step: median (min to max)", "over bare PyTorch, ms"),
        [[row["loop"], contest.spread(row["milliseconds"], ".3f"), f"{row['over_bare']:.3f}"] for row in rows],
    )
    values = {"rows": rows, "steps": given.steps, "rounds": given.rounds, "turns": turns_of}
    contest.publish(given.output, table, values, machine=contest.machine(threads=1))


if __name__ == "__main__":
    run_command(main)

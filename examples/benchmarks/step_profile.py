"""Where a training step of the default run goes: milliseconds of each part, and the operators that cost most.

    python examples/benchmarks/step_profile.py [--steps 20] [--method NAME] [--backbone NAME] [--dropout 0.1]
        [--batch_size 8] [--model_name_or_path NAME] [--output PREFIX]

It trains on the bundled stories, by the same function as ``python -m sentorder.train`` and with what that would give to
it; the clock is read around these things, and the loop itself is untouched. ``the rest`` is the Python of the loop, and
the little that it computes by itself. What a run does between two steps (logging, evaluating, saving) is not in it. On
an accelerator each part is waited for, so that its time is its own; steps are somewhat slower by that.

Prints three Markdown tables: the parts (mean milliseconds per step, share of the step), the ten operators of
``torch.profiler`` with most time of their own in ``--profiled`` further steps (of the processor; on a GPU of the GPU),
and what the batches were: documents, tokens, how many of the tokens that the encoder computes are padding, and whether
collating stays under 2 % of a step.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import contest
import torch
from torch.profiler import ProfilerActivity, profile

from sentorder import finite_guard
from sentorder.arguments import TrainArguments
from sentorder.command_line import run_command
from sentorder.cuda_graphs import recorded_loss
from sentorder.data.sources import load_splits
from sentorder.errors import UserError
from sentorder.loop import call_model, train_steps
from sentorder.resume import Start
from sentorder.run import Run, build_run
from sentorder.runtime import accelerator_for

PARTS = (
    *("reading documents", "collating", "forward", "loss", "backward", "clipping (norm)"),
    *("finite check", "optimizer", "scheduler", "zero_grad"),
)
REST = "the rest"
WARM_UP = 3
"""Steps that are not counted."""
OPERATORS = 10
TARGET = 0.02
"""Of a step: what collating may take."""


class Stopwatch:
    """Adds up the seconds of each part; one that is inside of another does not count in that."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.synchronize = synchronize
        self.restart()

    def restart(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def now(self) -> float:
        self.synchronize()
        return time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = self.now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            taken = self.now() - started
            self.seconds[name] += taken - self._inner.pop()
            self._inner[-1] += taken

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # a scheduler looks for what it has written on ``step``
        def timed(*given: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*given, **named)

        return timed


class TimedLoader:
    """A prepared loader whose batches are timed as they are asked for."""

    def __init__(self, loader: Any, watch: Stopwatch) -> None:
        self.loader, self.watch = loader, watch
        base = getattr(loader, "base_dataloader", loader)  # Accelerate's is a shell around one
        base.collate_fn = watch.around("collating", base.collate_fn)

    def __iter__(self) -> Iterator[Any]:
        with contextlib.closing(iter(self.loader)) as batches:
            while True:
                with self.watch.part("reading documents"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class Counts:
    """What the steps were made of."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.batches: list[Any] = []  # counted afterwards: a step is not to pay for it
        self.computed = 0

    def encoder_hook(self, module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """How many tokens the encoder is given, whatever the backbone has made of the batch."""
        self.computed += (named["input_ids"] if "input_ids" in named else given[0]).numel()

    def figures(self) -> dict[str, float]:
        documents = sum(len(batch["slot_mask"]) for batch in self.batches)
        sentences = sum(int(batch["slot_mask"].sum()) for batch in self.batches)
        tokens = sum(int(batch["attention_mask"].sum()) for batch in self.batches)
        computed = self.computed or sum(batch["input_ids"].numel() for batch in self.batches)  # all of it on a GPU
        padding = 1 - tokens / computed
        return {
            "documents": documents,
            "sentences": sentences,
            "tokens": tokens,
            "tokens_computed": computed,
            "padding_share": padding,
        }


def watched_steps(run: Run, watch: Stopwatch, counts: Counts) -> Iterator[Any]:
    """The steps of a run, each part of which is timed."""
    accelerator, model = run.accelerator, run.model
    optimizer: Any = run.optimizer  # Accelerate's, around PyTorch's
    forward = watch.around("forward", call_model)

    def counted(model: torch.nn.Module, batch: Any) -> Any:
        counts.batches.append(batch)
        return forward(model, batch)

    with contextlib.ExitStack() as stack:
        for owner, attribute, name in (
            (accelerator, "backward", "backward"),
            # Whether it goes through Accelerate's or straight to PyTorch's is the loop's affair: both count once.
            (accelerator, "clip_grad_norm_", "clipping (norm)"),
            (torch.nn.utils, "clip_grad_norm_", "clipping (norm)"),
            (optimizer, "step", "optimizer"),
            (optimizer.optimizer, "step", "optimizer"),
            (optimizer, "zero_grad", "zero_grad"),
            (optimizer.optimizer, "zero_grad", "zero_grad"),
            (run.scheduler, "step", "scheduler"),
        ):
            stack.enter_context(patch.object(owner, attribute, watch.around(name, getattr(owner, attribute))))
        check = finite_guard.FiniteGuard.check
        stack.enter_context(patch.object(finite_guard.FiniteGuard, "check", watch.around("finite check", check)))
        if accelerator.device.type == "cpu":  # a hook would keep passes from being recorded
            hook = run.bare.backbone.encoder.register_forward_pre_hook(counts.encoder_hook, with_kwargs=True)
            stack.callback(hook.remove)
        yield from train_steps(
            accelerator,
            model,
            optimizer,
            run.scheduler,
            TimedLoader(run.train_loader, watch),
            watch.around("loss", recorded_loss(run.bare.method.training_loss)),
            max_steps=run.total_steps,
            max_grad_norm=run.arguments.max_grad_norm,
            forward=counted,
        )


# --- the figures ------------------------------------------------------------------------------------------------------


def parts_of(watch: Stopwatch, seconds: float, steps: int) -> list[dict[str, Any]]:
    """Milliseconds per step of each part, and its share."""
    taken = {name: watch.seconds[name] for name in PARTS}
    taken[REST] = seconds - sum(taken.values())
    return [
        {"part": name, "milliseconds": 1000 * value / steps, "share": value / seconds} for name, value in taken.items()
    ]


def operators_of(steps: Iterator[Any], number: int, on_cpu: bool) -> list[dict[str, Any]]:
    """The most costly operators of so many further steps, by their time without what they call."""
    activities = [ProfilerActivity.CPU, *([] if on_cpu else [ProfilerActivity.CUDA])]
    with profile(activities=activities) as profiler:
        for _ in range(number):
            next(steps)
    kind = "self_cpu_time_total" if on_cpu else "self_device_time_total"
    found = sorted(profiler.key_averages(), key=lambda event: getattr(event, kind), reverse=True)
    whole = sum(getattr(event, kind) for event in found)
    return [
        {
            "operator": event.key,
            "calls": event.count / number,
            "milliseconds": getattr(event, kind) / 1000 / number,
            "share": getattr(event, kind) / whole,
        }
        for event in found[:OPERATORS]
    ]


def measure(arguments: TrainArguments, steps: int, profiled: int) -> dict[str, Any]:
    """Train a little, and say where the time went."""
    with accelerator_for(mixed_precision=None, cpu_threads=arguments.cpu_threads) as accelerator:
        run = build_run(accelerator, arguments, load_splits(arguments.dataset).splits, Start())
        asked = WARM_UP + steps + profiled
        if asked >= run.total_steps:
            raise UserError(f"--steps and --profiled: the run has {run.total_steps} steps, fewer than {asked + 1}.")
        on_cpu = accelerator.device.type == "cpu"
        watch = Stopwatch((lambda: None) if on_cpu else torch.accelerator.synchronize)
        counts = Counts()
        with contextlib.closing(watched_steps(run, watch, counts)) as going:
            for _ in range(WARM_UP):
                next(going)
            watch.restart()
            counts.restart()
            started = watch.now()
            for _ in range(steps):
                next(going)
            seconds = watch.now() - started
            parts, batches = parts_of(watch, seconds, steps), counts.figures()
            operators = operators_of(going, profiled, on_cpu) if profiled else []
        return {
            "origin": run.bare.origin,
            "device": accelerator.device.type,
            "threads": torch.get_num_threads(),
            "steps": steps,
            "step_milliseconds": 1000 * seconds / steps,
            "parts": parts,
            "profiled_steps": profiled,
            "operators": operators,
            "batches": batches,
        }


def tables(found: dict[str, Any]) -> str:
    """What is printed."""

    def shares(kind: str, rows: list[dict[str, Any]], more: tuple[str, ...] = ()) -> str:
        return contest.markdown(
            (kind, *more, "ms/step", "share"),
            [
                [row[kind], *(f"{row[name]:.0f}" for name in more), f"{row['milliseconds']:.2f}", f"{row['share']:.1%}"]
                for row in rows
            ],
        )

    step = {"part": "a step", "milliseconds": found["step_milliseconds"], "share": 1.0}
    batches, steps = found["batches"], found["steps"]
    (collating,) = (row for row in found["parts"] if row["part"] == "collating")
    verdict = "under" if collating["share"] < TARGET else "NOT under"
    of_batches = contest.markdown(
        ("documents/step", "tokens/step", "padding, of the tokens computed", "collating, ms/step", "of a step"),
        [
            [
                f"{batches['documents'] / steps:.1f}",
                f"{batches['tokens'] / steps:.0f}",
                f"{batches['padding_share']:.1%}",
                f"{collating['milliseconds']:.2f}",
                f"{collating['share']:.1%} ({verdict} {TARGET:.0%})",
            ]
        ],
    )
    waited = "" if found["device"] == "cpu" else "; each part is waited for"
    title = f"{found['origin']}; {found['device']}{waited}; {steps} steps"
    operators = shares("operator", found["operators"], ("calls",)) if found["operators"] else None
    parts = shares("part", [*found["parts"], step])
    return "\n\n".join(table for table in (title, parts, operators, of_batches) if table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("method", "backbone", "model_name_or_path"):
        parser.add_argument(f"--{name}", help="As of sentorder.train.")
    parser.add_argument("--dropout", type=float, default=TrainArguments.dropout)
    parser.add_argument("--batch_size", type=int, default=TrainArguments.per_device_train_batch_size)
    parser.add_argument("--cpu_threads", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--profiled", type=int, default=5, help="Steps for the table of operators; 0 for none.")
    contest.add_output(parser)
    given = parser.parse_args()
    if given.steps < 1 or given.profiled < 0:
        raise UserError("--steps must be at least 1, and --profiled not below 0.")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainArguments(
            method=given.method,
            backbone=given.backbone,
            model_name_or_path=given.model_name_or_path,
            dropout=given.dropout,
            per_device_train_batch_size=given.batch_size,
            cpu_threads=given.cpu_threads,
            output_dir=f"{folder}/run",
            eval_strategy="no",
            save_strategy="no",
        )
        arguments.check()
        found = measure(arguments, given.steps, given.profiled)
    contest.publish(given.output, tables(found), found, machine=contest.machine(found["threads"]))


if __name__ == "__main__":
    run_command(main)

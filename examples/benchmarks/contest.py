"""Contestants that take turns: what the benchmarks beside this file measure with.

Each contestant is a process of its own that is set up once and then waits while another one is at work: A B C A B C ...
So all of them see the same machine, also one whose speed drifts, and what is compared is the ratio of two turns of one
round. A contestant is a function that calls :meth:`Turns.count` after each piece of work; what calls the function (a
Trainer, a loop of somebody else's) need not know of turns.

What comes out is one table, as Markdown on the screen and, with ``--output PREFIX``, as PREFIX.md and PREFIX.json with
every turn, the machine and the versions of all that took part.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sentorder.errors import UserError
from sentorder.files import write_json, write_text
from sentorder.model_card import library_versions

Figures = dict[str, float]

# --- a contestant's side ----------------------------------------------------------------------------------------------


class Turns:
    """The turns of the contestant whose process this is: it works when it is told to, and waits in between.

    What it prints meanwhile goes to its standard error.

    Args:
        synchronize: waits for the device, before the clock is read; None on a CPU.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._synchronize = synchronize or (lambda: None)
        self._left = 0
        self._totals: Figures = {}

    def wait(self) -> None:
        """Say that all is done, and wait for the next turn; ends the process after the last one."""
        self._answer({})
        self._begin()

    def count(self, **figures: float) -> None:
        """A piece of work is done.

        Args:
            figures: what it came to, such as ``documents``: added up over the turn.
        """
        for name, value in figures.items():
            self._totals[name] = self._totals.get(name, 0.0) + float(value)
        self._left -= 1
        if self._left == 0:
            self._synchronize()
            seconds = time.perf_counter() - self._started
            used = resource.getrusage(resource.RUSAGE_SELF)
            cpu = used.ru_utime + used.ru_stime - self._cpu
            self._answer(self._totals | {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": used.ru_maxrss / 1024})
            self._begin()

    def _answer(self, figures: Figures) -> None:
        self._answers.write(json.dumps(figures) + "\n")
        self._answers.flush()

    def _begin(self) -> None:
        order = sys.stdin.readline()
        if not order:
            os._exit(0)  # whatever it is in the middle of
        self._left = int(order)
        self._totals = {}
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu = used.ru_utime + used.ru_stime
        self._synchronize()
        self._started = time.perf_counter()


# --- the side that lets them take turns -------------------------------------------------------------------------------


class Contestant:
    """A process that gets ready, and then waits for its turn."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (until the end)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Until it is set up."""
        self._hear()

    def turn(self, pieces: int) -> Figures:
        """Let it do so many pieces of work."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pieces}\n")
        self._process.stdin.flush()
        return self._hear()

    def end(self) -> None:
        """It has had its last turn."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._errors.close()

    def _hear(self) -> Figures:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-12:]
            raise UserError("\n".join([f"{self.name}: ended with exit code {code}.", *last]))
        figures: Figures = json.loads(line)
        return figures


@contextlib.contextmanager
def ready(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Contestant]]:
    """All contestants; they get ready side by side.

    Raises:
        UserError: what one of them said when it ended too early.
    """
    contestants: dict[str, Contestant] = {}
    try:
        for name, command in commands.items():
            contestants[name] = Contestant(name, command)
        for name, contestant in contestants.items():
            tell(f"setting up: {name}")
            contestant.wait_until_ready()
        yield contestants
    finally:
        for contestant in contestants.values():
            contestant.end()


def take_turns(
    commands: Mapping[str, Sequence[str]], pieces: Mapping[str, int], *, rounds: int, warm_up: Mapping[str, int]
) -> dict[str, list[Figures]]:
    """The figures of each turn of each contestant.

    Args:
        commands: what starts each of them, by name.
        pieces: of work in a turn.
        rounds: in each of which all have their turn.
        warm_up: pieces of work of a first turn that is not counted.
    """
    with ready(commands) as contestants:
        for name, contestant in contestants.items():
            tell(f"warming up: {name}")
            contestant.turn(warm_up[name])
        turns: dict[str, list[Figures]] = {name: [] for name in contestants}
        for number in range(1, rounds + 1):
            for name, contestant in contestants.items():
                figures = contestant.turn(pieces[name])
                turns[name].append(figures)
                tell(f"round {number} of {rounds}: {name}: {figures['seconds']:.2f} s")
    return turns


def tell(line: str) -> None:
    """How far it is; not part of the result."""
    print(line, file=sys.stderr, flush=True)


# --- figures ----------------------------------------------------------------------------------------------------------


def rates(turns: Sequence[Figures], what: str = "documents") -> list[float]:
    """So many of these a second, in each turn."""
    return [turn[what] / turn["seconds"] for turn in turns]


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round."""
    return [value / other for value, other in zip(values, others, strict=True)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and in brackets least and most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine(threads: int | None = None) -> dict[str, Any]:
    """What it was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor(), "cores": cores, "threads": threads or cores, "system": platform.platform()}


def add_output(parser: argparse.ArgumentParser) -> None:
    """The argument that :func:`publish` reads."""
    parser.add_argument("--output", type=Path, metavar="PREFIX", help="Write PREFIX.md and PREFIX.json as well.")


def publish(
    output: Path | None,
    table: str,
    values: Mapping[str, Any],
    *,
    machine: Mapping[str, Any],
    others: Sequence[str] = (),
) -> None:
    """Print the table, and write it down.

    Args:
        output: the beginning of two files' names; None writes none.
        table: Markdown.
        values: all figures, for the JSON file.
        machine: from :func:`machine`.
        others: distributions that took part, beside those that a model card names.
    """
    versions = library_versions()
    for name in others:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    note = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; {told}"
    print(f"{table}\n\n{note}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output.with_name(output.name + ".md"), f"{table}\n\n{note}\n")
        write_json(output.with_name(output.name + ".json"), {**values, "machine": machine, "versions": versions})

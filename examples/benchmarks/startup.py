"""Seconds from the start of a process to what one waits for: the help of a command, the first step of a training.

    python examples/benchmarks/startup.py [--repetitions 5] [--model_name_or_path NAME] [--output PREFIX]

``--help`` of predict, evaluation and train is timed to the end of the process. The default training run is timed until
the loss of its first optimizer step is in its log (``--logging_steps 1`` is all that it is told beside where to write),
and then killed with all that it has started. Each command runs once before, so that files are in the memory of the
system, Python's bytecode is written and the documents lie tokenised in the cache, as from the second run on; the cache
is one for this measurement alone. To compare with, the table begins with Python alone and with the import of torch.

Prints a Markdown table: median seconds, with least and most. The commands take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import contest

from sentorder.command_line import run_command
from sentorder.errors import UserError
from sentorder.run_folder import METRICS

LOOK_EVERY = 0.005
"""Seconds between two looks into the log."""
GIVE_UP = 600
"""Seconds after which no first step will come."""
FIRST_STEP = "python -m sentorder.train: first step done"


def to_the_end(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """How long a process takes.

    Raises:
        UserError: what it said, if it failed.
    """
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"{' '.join(command)}: exit code {done.returncode}.\n{done.stderr.strip()}")
    return seconds


def has_a_step(log: Path) -> bool:
    """Whether the loss of a step is in it; its last line may be half written."""
    with contextlib.suppress(FileNotFoundError):
        for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n") and "loss" in json.loads(line):
                return True
    return False


def to_the_first_step(options: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """How long a training takes to its first step; then it is killed.

    Raises:
        UserError: if it ends or lasts without one.
    """
    command = [sys.executable, "-m", "sentorder.train", "--logging_steps", "1", "--output_dir", str(folder), *options]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        started = time.perf_counter()
        # A group of its own: what it may have started is to end with it.
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            while not has_a_step(folder / METRICS):
                if process.poll() is not None or time.perf_counter() - started > GIVE_UP:
                    said.seek(0)
                    last = said.read().strip().splitlines()[-12:]
                    raise UserError("\n".join([f"{' '.join(command)}: did no step.", *last]))
                time.sleep(LOOK_EVERY)
            return time.perf_counter() - started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def commands(
    options: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, Callable[[], float]]]:
    """What is timed, and how."""
    for title, words in (
        ("python, nothing more", ["-c", "pass"]),
        ("python, import torch", ["-c", "import torch"]),
        *(
            (f"python -m sentorder.{name} --help", ["-m", f"sentorder.{name}", "--help"])
            for name in ("predict", "evaluation", "train")
        ),
    ):
        yield title, lambda words=words: to_the_end([sys.executable, *words], environment)  # type: ignore[misc]
    numbers = itertools.count(1)
    yield FIRST_STEP, lambda: to_the_first_step(options, folder / f"run-{next(numbers)}", environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="Of each, beside the first, which is not counted.")
    parser.add_argument("--model_name_or_path", help="Of the training (default: all-MiniLM-L6-v2).")
    contest.add_output(parser)
    given = parser.parse_args()
    if given.repetitions < 1:
        raise UserError("--repetitions must be at least 1.")
    options = [] if given.model_name_or_path is None else ["--model_name_or_path", given.model_name_or_path]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache")}
        timed = dict(commands(options, folder, environment))
        seconds: dict[str, list[float]] = {title: [] for title in timed}
        for repetition in range(given.repetitions + 1):
            for title, run in timed.items():
                taken = run()
                contest.tell(f"{f'repetition {repetition}' if repetition else 'warming up'}: {title}: {taken:.2f} s")
                if repetition:
                    seconds[title].append(taken)
    rows = [
        {"command": title, "seconds": taken, "median": statistics.median(taken)} for title, taken in seconds.items()
    ]
    table = contest.markdown(
        ("command", "seconds: median (min to max)"),
        [[title, contest.spread(taken)] for title, taken in seconds.items()],
    )
    contest.publish(given.output, table, {"rows": rows}, machine=contest.machine())


if __name__ == "__main__":
    run_command(main)

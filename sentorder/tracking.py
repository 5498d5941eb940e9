"""What a run tells: ``metrics.jsonl``, a progress bar or plain lines, and the trackers of Accelerate."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from tqdm import tqdm

from .errors import UserError

Item = TypeVar("Item")

TRACKER_FOLDER = "sentorder"
"""What trackers call the project; TensorBoard's files go into a folder of that name."""
SHORT_NAMES = {"learning_rate": "lr", "documents_per_second": "docs/s", "eval_kendall_tau": "tau"}
"""What the progress bar shows, by the name in ``metrics.jsonl``; the loss is shown as well."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuse a tracker that is unknown or not installed; Accelerate would leave it out without a word.

    Raises:
        UserError: naming it.
    """
    for name in names:
        if name not in LoggerType.list():
            raise UserError(f"--log_with {name}: there is no such tracker; choose from {', '.join(LoggerType.list())}.")
        if name != LoggerType.ALL and LoggerType(name) not in get_available_trackers():
            raise UserError(
                f'--log_with {name}: that tracker is not installed; pip install {name}, or "sentorder[trackers]" '
                "for the tested ones."
            )


def progress(items: Iterable[Item], description: str, accelerator: Accelerator) -> Iterable[Item]:
    """The items behind a passing progress bar on a terminal; silent elsewhere and on all but the main process."""
    shown = accelerator.is_main_process and sys.stderr.isatty()
    bar: Iterable[Item] = tqdm(items, desc=description, leave=False, disable=not shown, mininterval=0.5)
    return bar


def progress_bar(total: int, description: str, unit: str, *, main: bool = True) -> Any:
    """A progress bar on a terminal, nothing elsewhere."""
    shown = main and sys.stderr.isatty()
    return tqdm(total=total, desc=description, unit=unit, disable=not shown, mininterval=0.5, smoothing=0.1)


class RunLog:
    """Logs one run; on processes other than the main one every call does nothing.

    Args:
        accelerator: of the run, with its trackers.
        path: of ``metrics.jsonl``; an old one is replaced.
        total_steps: for the progress bar.
        arguments: of the run, for the trackers.
    """

    def __init__(self, accelerator: Accelerator, path: Path, total_steps: int, arguments: Mapping[str, Any]) -> None:
        self.accelerator = accelerator
        self.main = accelerator.is_main_process
        self.terminal = self.main and sys.stderr.isatty()
        self.total_steps = total_steps
        self.shown: dict[str, float] = {}
        self.done = 0
        self.kept = "no model was saved yet"  # what is left if somebody interrupts the run
        self.file = open(path, "w", encoding="utf-8") if self.main else None  # noqa: SIM115  # closed in __exit__
        self.bar = progress_bar(total_steps, "training", "step", main=self.main)
        if accelerator.log_with:
            # Trackers take only flat values.
            flat = {name: value if isinstance(value, (int, float)) else str(value) for name, value in arguments.items()}
            accelerator.init_trackers(TRACKER_FOLDER, config=flat)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.say(f"interrupted after step {self.done}; {self.kept}")
        if self.file is not None:
            self.file.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def advance(self) -> None:
        """One optimizer step is done."""
        self.done += 1
        self.bar.update()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write one object of numbers for a step: to the file, the trackers, and the bar or a plain line."""
        if not self.main:
            return
        assert self.file is not None
        # JSON knows no NaN.
        row = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if self.accelerator.log_with:
            self.accelerator.log(dict(values), step=step)
        if self.terminal:
            names = {"loss": "loss", **SHORT_NAMES}
            self.shown |= {names[name]: value for name, value in values.items() if name in names}
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in self.shown.items()}, refresh=False)
        else:
            figures = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.say(f"step {step}/{self.total_steps}  {figures}")

    def say(self, line: str) -> None:
        """Print a line without breaking the progress bar."""
        if self.main:
            tqdm.write(line, file=sys.stderr)

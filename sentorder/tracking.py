"""What a run tells: ``metrics.jsonl``, a progress bar or plain lines, and the trackers of Accelerate."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from tqdm import tqdm

from .errors import UserError
from .loop import Step
from .metrics import DETAILS
from .stopping import Stopped

Item = TypeVar("Item")

TRACKER_FOLDER = "sentorder"
"""What trackers call the project; TensorBoard's files go into a folder of that name."""
SHORT_NAMES = {"learning_rate": "lr", "documents_per_second": "docs/s", "eval_kendall_tau": "tau"}
"""What the progress bar shows, by the name in ``metrics.jsonl``; the loss is shown as well."""
UNSHOWN = (*(f"_{name}" for name in sorted(DETAILS)), "_low", "_high")
"""How the names end that a plain line leaves to ``metrics.jsonl``, to be readable."""


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


def progress_bar(total: int, description: str, unit: str, *, main: bool = True, done: int = 0) -> Any:
    """A progress bar on a terminal, nothing elsewhere."""
    shown = main and sys.stderr.isatty()
    return tqdm(
        total=total, initial=done, desc=description, unit=unit, disable=not shown, mininterval=0.5, smoothing=0.1
    )


class Meter:
    """Means between two log lines; nothing is read from the device before they are wanted.

    Args:
        state: from :meth:`state`, to go on with.
    """

    def __init__(self, state: Mapping[str, float] | None = None) -> None:
        self.loss: torch.Tensor | float
        self.count: torch.Tensor | float
        self.skipped: torch.Tensor | float
        self._restart()
        if state is not None:
            self.loss, self.count, self.skipped = state["loss"], state["count"], state["skipped"]
            self.counted_before = state["count"]  # by a process that has ended: not in the speed of this one

    def _restart(self) -> None:
        self.loss, self.count, self.skipped, self.counted_before = 0.0, 0.0, 0.0, 0.0
        self.started = time.perf_counter()

    def add(self, step: Step) -> None:
        """Take an optimizer step into account."""
        nothing = torch.zeros_like(step.loss)
        self.loss = self.loss + torch.where(step.finite, step.loss * step.count, nothing)
        self.count = self.count + torch.where(step.finite, step.count, nothing)
        self.skipped = self.skipped + torch.where(step.finite, nothing, nothing + 1)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """``with meter.paused(): ...`` leaves that time out of documents per second."""
        began = time.perf_counter()
        yield
        self.started += time.perf_counter() - began

    def state(self) -> dict[str, float]:
        """What was added since the last log line, as plain numbers."""
        return {"loss": float(self.loss), "count": float(self.count), "skipped": float(self.skipped)}

    def figures(self, step: Step, steps_per_epoch: int) -> dict[str, float]:
        """What is logged: the mean loss since the last time, and the figures of this step."""
        count = float(self.count)
        figures = {
            "epoch": round(step.number / steps_per_epoch, 4),
            "loss": float(self.loss) / count if count else math.nan,
            "learning_rate": step.learning_rate,
            "gradient_norm": float(step.gradient_norm),
            "documents_per_second": (count - self.counted_before) / (time.perf_counter() - self.started),
        }
        if self.skipped:
            figures["skipped_steps"] = float(self.skipped)
        self._restart()
        return figures


def _tracker_settings(accelerator: Accelerator, folder: Path, done: int) -> dict[str, dict[str, Any]]:
    """What trackers are told: to write into the run's folder unless their own variables name another, and more."""
    settings: dict[str, dict[str, Any]] = {}
    if done:
        settings["tensorboard"] = {"purge_step": done}
    if "WANDB_DIR" not in os.environ:
        settings["wandb"] = {"dir": str(folder)}
    if "SWANLAB_LOG_DIR" not in os.environ:
        settings["swanlab"] = {"logdir": str(folder / "swanlog")}
    if LoggerType.MLFLOW in accelerator.log_with:
        import mlflow

        run = mlflow.active_run()
        if run is not None:  # log into the run that somebody is in; to start another one would be refused
            settings["mlflow"] = {"run_id": run.info.run_id, "nested_run": True}
    return settings


class RunLog:
    """Logs one run; on processes other than the main one every call does nothing.

    Args:
        accelerator: of the run, with its trackers.
        path: of ``metrics.jsonl``; lines are added to what is there.
        total_steps: for the progress bar.
        arguments: of the run, for the trackers.
        done: steps that were done before; TensorBoard then passes over what an earlier process logged from there on.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        path: Path,
        total_steps: int,
        arguments: Mapping[str, Any],
        *,
        done: int = 0,
    ) -> None:
        self.accelerator = accelerator
        self.main = accelerator.is_main_process
        self.terminal = self.main and sys.stderr.isatty()
        self.total_steps = total_steps
        self.shown: dict[str, float] = {}
        self.done = done
        self.kept = "no model was saved yet"  # what is left if somebody interrupts the run
        self.file = open(path, "a", encoding="utf-8") if self.main else None  # noqa: SIM115  # closed in __exit__
        self.bar = progress_bar(total_steps, "training", "step", main=self.main, done=done)
        if accelerator.log_with:
            # Trackers take only flat values.
            flat = {name: value if isinstance(value, (int, float)) else str(value) for name, value in arguments.items()}
            settings = _tracker_settings(accelerator, path.parent, done)
            accelerator.init_trackers(TRACKER_FOLDER, config=flat, init_kwargs=settings)
            # An earlier process may have logged more of this step than is to stay, so it is logged again.
            lines = path.read_text(encoding="utf-8").splitlines() if done and self.main else []
            for row in map(json.loads, lines):
                if row.pop("step") == done:
                    accelerator.log({name: math.nan if value is None else value for name, value in row.items()}, done)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if kind is not None and issubclass(kind, (KeyboardInterrupt, Stopped)):
            self.say(f"stopped after step {self.done}; {self.kept}")
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
            shown = {name: value for name, value in values.items() if not name.endswith(UNSHOWN)}
            figures = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            self.say(f"step {step}/{self.total_steps}  {figures}")

    def say(self, line: str) -> None:
        """Print a line without breaking the progress bar."""
        if self.main:
            tqdm.write(line, file=sys.stderr)

"""Stopping a run from outside: signals and a lost launcher ask for it, and the run stops between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

STOPPED_CODE = 75
"""Exit code of a run that was asked to stop and saved a checkpoint: start it again to go on."""
GRACE_SECONDS = 1.0
"""Launchers pass on the signal that a terminal has sent already; so soon, a second one is the same request."""


class Stopped(SystemExit):
    """The run was asked to stop by SIGTERM, SIGUSR1 or the end of its launcher; uncaught it ends the process with its
    code: :data:`STOPPED_CODE`, or 128 + the signal's number if nothing was to be saved."""


class StopRequests:
    """Listens while the ``with`` block runs; the handlers that were there before come back after it.

    SIGTERM, SIGINT and SIGUSR1 only set a mark; the loop asks :meth:`reason` between two steps. A second signal, a
    second or more after the first, ends the process at once. Under a launcher, its end is a request as well: it passes
    no signal on, and nobody would ever stop the processes that it leaves behind. Off the main thread nothing is
    installed, as Python has it.

    Args:
        accelerator: whose processes stop together.
        look_every: with several processes, how many steps may pass before they ask each other.
    """

    def __init__(self, accelerator: Accelerator, *, look_every: int = 1) -> None:
        self.accelerator = accelerator
        self.look_every = look_every
        self.number = 0  # of the signal that came first
        self.came_at = 0.0
        self.before: dict[int, Any] = {}
        launched = {"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"} & os.environ.keys()
        self.parent = os.getppid() if launched else None

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):  # Windows has no SIGUSR1
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self.came_at = number, now
            if self.accelerator.is_main_process:
                _tell("stopping after this step; a second signal stops at once")
        elif now - self.came_at > GRACE_SECONDS:
            _tell("stopped at once")
            os._exit(128 + number)

    def reason(self, step: int) -> int:
        """0 to go on, else the signal to stop for (SIGTERM for a lost launcher); the same on every process."""
        if not self.number and self.parent is not None and os.getppid() != self.parent:
            self.number, self.came_at = signal.SIGTERM, time.monotonic()
            if self.accelerator.is_main_process:
                _tell("the launcher is gone; stopping after this step")
        if self.accelerator.num_processes == 1:
            return self.number
        if step % self.look_every:
            return 0
        numbers = torch.tensor([self.number], device=self.accelerator.device)
        return int(self.accelerator.gather(numbers).max())


def stop(reason: int, *, saved: bool) -> NoReturn:
    """End the run for a reason that :meth:`StopRequests.reason` gave.

    Raises:
        KeyboardInterrupt: for SIGINT.
        Stopped: for all others.
    """
    raise KeyboardInterrupt if reason == signal.SIGINT else Stopped(STOPPED_CODE if saved else 128 + reason)


def _tell(line: str) -> None:
    """Print from a signal handler, where nothing may be buffered or locked."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, f"\nsentorder: {line}\n".encode())

"""The one exception that means: what the user gave is wrong, and here is the way out; and how Ctrl-C is told."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

INTERRUPTED = "sentorder: interrupted"
INTERRUPTED_CODE = 130
"""What a command says after Ctrl-C, and its exit code."""


class UserError(ValueError):
    """A mistake in an argument, a file or an environment.

    The message is one clear sentence (or one per line, where several things are wrong) that names the file, line or
    argument and says what to do. The command line prints it without a traceback; library code may catch it as the
    ``ValueError`` that it is.
    """


def first_line(error: Exception) -> str:
    """What another library's error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def late_imports() -> Iterator[None]:
    """Around an ``import`` in the middle of a command, so that Ctrl-C is one line there too."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_on_interrupt)
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def end_on_interrupt(number: int, frame: object) -> None:
    """Handler of SIGINT while a command is still importing: C++ code that is entered then aborts on an exception."""
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED_CODE)

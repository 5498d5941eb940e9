"""Train models that restore the order of shuffled sentences, with plain PyTorch and Accelerate.

The names below are imported on first use, so that ``import sentorder`` is fast and touches no device.
"""

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import end_on_interrupt

if TYPE_CHECKING:
    from .arguments import TrainArguments
    from .errors import UserError
    from .methods import METHODS
    from .modeling import SentenceOrderer, SentenceOrdererConfig

if (
    sys.argv[:1] == ["-m"]
    and any(word.startswith(f"{__name__}.") for word in sys.orig_argv)
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    # `python -m sentorder...` has begun and imports torch for seconds; `run_command` takes over from here.
    signal.signal(signal.SIGINT, end_on_interrupt)

__version__ = "0.1.0"

_HOMES = {
    "METHODS": "methods",
    "SentenceOrderer": "modeling",
    "SentenceOrdererConfig": "modeling",
    "TrainArguments": "arguments",
    "UserError": "errors",
}
__all__ = ["METHODS", "SentenceOrderer", "SentenceOrdererConfig", "TrainArguments", "UserError"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

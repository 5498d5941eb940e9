"""Work that several processes share, its results in order."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Results that each process may be ahead of what was taken: they are held in memory."""
_function: Callable[[Any], Any]


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], number: int) -> Iterator[Result]:
    """Like ``map``, in so many processes.

    Args:
        function: given to each process once; it and the results can be pickled.
        items: in whose order the results come.
        number: of processes.

    Raises:
        UserError: if a process was killed; and whatever ``function`` raises.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ProcessPoolExecutor(number, initializer=_begin, initargs=(function,))
    try:
        for item in items:
            waiting.append(pool.submit(_call, item))
            if len(waiting) > AHEAD * number:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "--preprocessing_num_workers: one of the processes was killed, perhaps because memory was full; give fewer."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive a fork, and the cores are taken
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever, and keep the locks that it was born with."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)

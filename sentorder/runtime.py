"""The machine: processes, precision, threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import datasets
import psutil
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedType,
    broadcast_object_list,
    gather_object,
    is_torch_xla_available,
)

from .errors import UserError
from .files import disk_reason
from .sharding import set_up_deepspeed, set_up_fsdp

Result = TypeVar("Result")


@contextlib.contextmanager
def accelerator_for(
    *,
    mixed_precision: str | None,
    cpu_threads: int | None,
    deterministic: bool = False,
    log_with: list[str] | None = None,
    project_dir: str | None = None,
) -> Iterator[Accelerator]:
    """An Accelerator for one run; afterwards another run in this process may choose another precision.

    Args:
        mixed_precision: ``no``, ``fp16`` or ``bf16``; None for what ``accelerate launch`` was told.
        cpu_threads: of each process; None shares the cores among the processes of this machine. (A launcher sets one
            thread where nobody told it otherwise, which leaves most of a machine idle.)
        deterministic: use only operations that give the same bits each time.
        log_with: trackers.
        project_dir: where trackers may write.

    Raises:
        UserError: if the precision does not fit the device, several processes would each train for themselves, or
            weights would be split among them.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    # On a machine without an accelerator several processes only find each other if told that it is the CPU.
    cpu = world_size > 1 and not torch.accelerator.is_available() and not is_torch_xla_available()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    was_deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    started_here = not PartialState._shared_state
    try:
        accelerator = Accelerator(
            mixed_precision=mixed_precision,
            cpu=cpu,
            step_scheduler_with_optimizer=False,
            dataloader_config=DataLoaderConfiguration(non_blocking=True),  # from pinned memory, while the device works
            log_with=log_with or None,
            project_dir=project_dir,
        )
        if world_size > accelerator.num_processes:
            raise UserError(
                f"{world_size} processes were started, but each of them is on its own and would train its own model. "
                "Start them with `accelerate launch` and a configuration for several processes, such as "
                "accelerate_configs/cpu_gloo.yaml."
            )
        _check_distribution(accelerator)
        if deterministic:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        on_cpu = accelerator.device.type == "cpu"
        if on_cpu and accelerator.mixed_precision == "fp16":
            raise UserError("--mixed_precision fp16: not on a CPU; use bf16 or no.")
        if on_cpu:
            torch.set_num_threads(cpu_threads or _fair_threads())
            _keep_freed_memory()
            # Kernels of oneDNN are made for one shape and kept, 1,024 of them: batches have ever new shapes, and a
            # kernel takes megabytes. (Read when the first one is made; what a step needs again and again stays.)
            os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        transformers.utils.logging.disable_progress_bar()
        if not (accelerator.is_main_process and sys.stderr.isatty()):
            datasets.disable_progress_bars()
        if not accelerator.is_main_process:
            transformers.utils.logging.set_verbosity_error()
        yield accelerator
        accelerator.wait_for_everyone()  # as in on_main_process
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
        torch.backends.cudnn.benchmark = benchmark
        if started_here and PartialState._shared_state:
            PartialState().destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)


def _check_distribution(accelerator: Accelerator) -> None:
    """Refuse what the loop does not know, and what would silently not be done."""
    kind = accelerator.distributed_type
    if kind == DistributedType.MEGATRON_LM:
        raise UserError("Megatron-LM: is not supported; use accelerate_configs/fsdp2.yaml.")
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise UserError("FSDP: version 1 is not supported; set fsdp_version: 2, as in accelerate_configs/fsdp2.yaml.")
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED) and accelerator.mixed_precision == "fp16":
        raise UserError("--mixed_precision fp16: not where training is split by FSDP2 or DeepSpeed; use bf16 or no.")
    if kind == DistributedType.FSDP:
        set_up_fsdp(accelerator)
    if kind == DistributedType.DEEPSPEED:
        set_up_deepspeed(accelerator)
    for name in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        asked = os.environ.get(f"ACCELERATE_USE_{name.value}", "false").lower() == "true"
        if asked and accelerator.num_processes > 1 and kind != name:
            raise UserError(
                f"{name.value}: Accelerate splits nothing among CPU processes; use accelerate_configs/cpu_gloo.yaml."
            )


def on_main_process(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Do something on the main process alone, and give its result to all; a mistake is raised on all of them.

    Else the others would wait for a process that has ended.

    Args:
        accelerator: of the processes, each of which must call this.
        action: gives something that can be pickled.

    Raises:
        UserError: what ``action`` raised, an ``OSError`` among it.
    """
    result, problem = broadcast_object_list([*_attempt(action if accelerator.is_main_process else None)])
    accelerator.wait_for_everyone()  # one that ends while others still receive leaves gloo waiting for ever
    if problem is not None:
        raise problem
    return result  # type: ignore[no-any-return]


def main_process_first(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Do something on every process, on the main one before the others, which find what it has left on the disk.

    Args:
        accelerator: of the processes, each of which must call this.
        action: whose result each process makes for itself.

    Raises:
        UserError: what ``action`` raised on one of them, on all of them.
    """
    result: Any = None
    for main in (True, False):
        mine = accelerator.is_main_process == main
        found, problem = _attempt(action if mine else None)
        result = found if mine else result
        problems = gather_object([problem])
        accelerator.wait_for_everyone()  # as in on_main_process
        for problem in problems:
            if problem is not None:
                raise problem
    return result  # type: ignore[no-any-return]


def _attempt(action: Callable[[], Result] | None) -> tuple[Result | None, UserError | None]:
    """What came of it, and what was wrong."""
    try:
        return None if action is None else action(), None
    except UserError as error:
        return None, error
    except OSError as error:
        return None, UserError(f"{error.filename or 'The disk'}: {disk_reason(error)}.")


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names that malloc.h of the GNU C library has."""


def _keep_freed_memory() -> None:
    """Let this process use memory again that tensors have left, instead of giving it back to the system.

    By default large pieces go back at once and come again page by page, each filled with zeros first: every step would
    pay for it, the most for the gradient of the word embeddings. What the process holds at most hardly changes.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(M_MMAP_MAX, 0)


def _fair_threads() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

"""The loop, and nothing about sentences: every step that a Trainer hides, in the order in which it happens.

Two functions. :func:`train_steps` trains and yields after each optimizer step, so that logging, evaluating, saving and
stopping are plain lines in the body of somebody's ``for``. :func:`evaluation_records` runs a model over a loader and
collects one small record per example from all processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DistributedType, find_batch_size, gather_object
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LRScheduler

from .finite_guard import FiniteGuard
from .sharding import adding_up, whole_weights

Record = TypeVar("Record")
Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Cursor:
    """Where a training stands between two steps; plain numbers, to be kept in a checkpoint."""

    number: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    """Of the next step."""
    steps_in_epoch: int = 0
    """Steps of that epoch done."""
    skipped_in_a_row: int = 0
    """Steps just before that were left out because they were not finite; see :attr:`Step.skipped_in_a_row`."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, just done. The tensors are on the device."""

    number: int
    """1 for the first."""
    epoch: int
    """0 for the first pass over the data."""
    ends_epoch: bool
    loss: torch.Tensor
    """0-dim: the weighted mean over all examples of the step, of all micro-batches and processes."""
    gradient_norm: torch.Tensor
    """0-dim: before clipping."""
    learning_rate: float
    """Of the first parameter group, as it was in this step."""
    count: torch.Tensor
    """0-dim: the sum of the weights, which is the number of examples unless some weigh less than 1."""
    finite: torch.Tensor
    """0-dim bool: False if loss or gradient was not finite, and the step therefore left the weights alone."""
    skipped_in_a_row: torch.Tensor
    """0-dim: how many steps up to here were left out one after the other."""
    cursor: Cursor
    """Where to go on after this step; ``skipped_in_a_row`` is 0 in it, so that nobody has to wait for the device."""
    confirm: Callable[[], None]
    """Waits for the device and raises the error of a step up to here that was not finite: to be called before anything
    is saved, where ``check_finite_every`` is above 1."""


_BEGINNING = Cursor()


def call_model(model: nn.Module, batch: Any) -> Any:
    """The default forward: the batch's entries as keyword arguments."""
    return model(**batch)


def example_weights(batch: Any) -> torch.Tensor:
    """(B,) the batch's own ``weights``, or 1 for every example where it has none."""
    if isinstance(batch, Mapping) and "weights" in batch:
        weights: torch.Tensor = batch["weights"]
        return weights
    return torch.ones(int(find_batch_size(batch) or 0))


def train_steps(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    train_loader: Any,
    loss_fn: Callable[[Any, Any], torch.Tensor],
    *,
    max_steps: int,
    gradient_accumulation_steps: int = 1,
    max_grad_norm: float | None = 1.0,
    forward: Forward = call_model,
    weights_of: Callable[[Any], torch.Tensor] = example_weights,
    start: Cursor = _BEGINNING,
    max_skipped_steps: int = 0,
    check_finite_every: int = 1,
) -> Iterator[Step]:
    """Train, and yield once per optimizer step; ``break`` ends the training cleanly.

    The loss of a step is the weighted mean over all of its examples, so that it does not matter how the step is cut
    into micro-batches and processes.

    Args:
        accelerator: made with ``gradient_accumulation_steps=1``: the window of micro-batches is taken here.
        model: prepared; put into training mode for each step.
        optimizer: prepared.
        scheduler: not prepared (a prepared one would be stepped once per process); None for a constant rate.
        train_loader: prepared; iterated again for each epoch.
        loss_fn: ``(output, batch) -> (B,)``, one value per example.
        max_steps: when to end.
        gradient_accumulation_steps: micro-batches per optimizer step; the last window of an epoch may have fewer.
        max_grad_norm: what the norm of the gradient is clipped to; None or 0 for no clipping.
        forward: how a batch goes through the model.
        weights_of: ``batch -> (B,)`` what each example counts.
        start: where to go on: the ``cursor`` of the last step that was done. The loader must give the same batches in
            the same order again; those of the epoch that were used are skipped without being loaded.
        max_skipped_steps: how many steps in a row may be left out because their loss or gradient is not finite.
        check_finite_every: how many steps may pass before the host waits for the device to learn whether all of them
            were finite. Above 1 the optimizer itself must be able to skip a step on the device, as the fused ones are;
            with another one the host waits at each step.

    Raises:
        NonFiniteError: before the optimizer step that a non-finite loss or gradient would have spoilt, if
            ``max_skipped_steps`` in a row were left out before it.
        ValueError: if ``loss_fn`` gives something else than one value per example, or the loader is empty.
    """
    number, epoch, done = start.number, start.epoch, start.steps_in_epoch
    guard = FiniteGuard(accelerator, optimizer, check_finite_every, max_skipped_steps, start.skipped_in_a_row)
    optimizer = _without_detours(accelerator, optimizer)
    bare, parameters = accelerator.unwrap_model(model), list(model.parameters())
    processes = accelerator.num_processes
    model.train()  # all of it, whatever mode its parts are in
    optimizer.zero_grad()
    while number < max_steps:
        if hasattr(train_loader, "set_epoch"):
            train_loader.set_epoch(epoch)
        steps_before = number
        # A copy of the loader for the rest of an epoch; it shares the sampler, which knows the epoch by now.
        skipped = done * gradient_accumulation_steps
        loader = skip_first_batches(train_loader, skipped) if skipped else train_loader
        with _closing(accelerator, loader) as batches, guard:
            for window, ends_epoch in windows(batches, gradient_accumulation_steps):
                if not (model.training and bare.training):  # somebody has evaluated in between
                    model.train()
                weights = [weights_of(batch) for batch in window]
                count = _total(accelerator, sum(part.sum() for part in weights))
                loss_sum: torch.Tensor | int = 0
                for place, (batch, part) in enumerate(zip(window, weights, strict=True), start=1):
                    complete = place == len(window)
                    with contextlib.nullcontext() if complete else adding_up(accelerator, model):
                        values = loss_fn(forward(model, batch), batch)
                        _check_one_per_example(values, part)
                        loss = values @ (part.to(values) / count)
                        # Processes average their gradients, and count already spans all of them.
                        accelerator.backward(loss * processes if processes > 1 else loss)
                    loss_sum = loss_sum + loss.detach()
                gradient_norm = _clip(accelerator, parameters, max_grad_norm)
                loss_mean = _total(accelerator, loss_sum)
                finite = guard.check(number + 1, loss_mean, gradient_norm, wait=number + 1 == max_steps)
                learning_rate = optimizer.param_groups[0]["lr"]
                if guard.leaves_it_to_the_optimizer or finite:
                    optimizer.step()
                finds_its_scale = accelerator.scaler is not None and accelerator.optimizer_step_was_skipped
                if scheduler is not None and not finds_its_scale:
                    scheduler.step()
                optimizer.zero_grad()
                number, done = number + 1, done + 1
                cursor = Cursor(number, epoch + 1) if ends_epoch else Cursor(number, epoch, done)
                yield Step(
                    number,
                    epoch,
                    ends_epoch,
                    loss_mean,
                    gradient_norm,
                    learning_rate,
                    count,
                    finite,
                    guard.skipped_in_a_row,
                    cursor,
                    guard.look,
                )
                if number >= max_steps:
                    return
        if number == steps_before:
            raise ValueError("The training loader gave no batch.")
        epoch, done = epoch + 1, 0


@torch.no_grad()
def evaluation_records(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[Any],
    records_of: Callable[[Any, Any], list[Record]],
    *,
    forward: Forward = call_model,
    weights_of: Callable[[Any], torch.Tensor] = example_weights,
) -> list[Record]:
    """Run the model in evaluation mode and collect one record per example, on every process those of all processes.

    Args:
        accelerator: whose processes share the loader.
        model: prepared or not; it runs unwrapped, so processes may have different numbers of batches.
        loader: prepared.
        records_of: ``(output, batch) -> `` one record per example: something small that can be pickled.
        forward: how a batch goes through the model.
        weights_of: ``batch -> (B,)``; the records of examples with weight 0 are dropped.

    Returns:
        The records in the order of processes and batches: identify the example in the record where order matters.

    Raises:
        ValueError: if ``records_of`` gives more or fewer records than the batch has examples.
    """
    bare = accelerator.unwrap_model(model)
    was_training = bare.training
    bare.eval()
    records: list[Record] = []
    try:
        with whole_weights(bare):
            for batch in loader:
                found = records_of(forward(bare, batch), batch)
                records.extend(
                    record for record, weight in zip(found, weights_of(batch).tolist(), strict=True) if weight > 0
                )
    finally:
        bare.train(was_training)
    return list(gather_object(records))


# --- the parts ------------------------------------------------------------------------------------------------------


def windows(batches: Iterable[Any], size: int) -> Iterator[tuple[list[Any], bool]]:
    """Lists of ``size`` batches (the last one may be shorter), each with whether it is the last."""
    window: list[Any] = []
    for batch in batches:
        if len(window) == size:
            yield window, False
            window = []
        window.append(batch)
    if window:
        yield window, True


@contextlib.contextmanager
def _closing(accelerator: Accelerator, loader: Any) -> Iterator[Iterator[Any]]:
    """Iterate over a loader that may be left half-way: Accelerate would go on taking it for the active one."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if hasattr(batches, "close"):
            batches.close()
        if accelerator.gradient_state.active_dataloader is loader:
            loader.end()


def _total(accelerator: Accelerator, value: torch.Tensor | int) -> torch.Tensor:
    """The sum over all processes, on the device."""
    total = torch.as_tensor(value, device=accelerator.device)
    if accelerator.num_processes > 1:
        total = accelerator.reduce(total, reduction="sum")
    return total


def _check_one_per_example(values: torch.Tensor, weights: torch.Tensor) -> None:
    if values.shape != weights.shape:
        raise ValueError(
            f"The loss must give one value per example, of shape {tuple(weights.shape)}, but has shape "
            f"{tuple(values.shape)}: leave the mean to the loop (reduction='none'), which alone knows how many "
            "examples the whole step has."
        )


def _is_plain(accelerator: Accelerator) -> bool:
    """Whether weights are whole and there is no scaler, so that Accelerate would pass the calls on as they are."""
    kinds = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    return accelerator.distributed_type in kinds and accelerator.scaler is None


def _without_detours(accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that Accelerate has wrapped, where it would only be called by the wrapper, which looks for a
    library on the disk in each step."""
    return getattr(optimizer, "optimizer", optimizer) if _is_plain(accelerator) else optimizer


def _clip(accelerator: Accelerator, parameters: list[nn.Parameter], max_grad_norm: float | None) -> torch.Tensor:
    """Clip the gradient and give the norm that it had."""
    clip = nn.utils.clip_grad_norm_ if _is_plain(accelerator) else accelerator.clip_grad_norm_
    norm = clip(parameters, max_grad_norm or float("inf"))
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return torch.as_tensor(norm, device=accelerator.device)  # of DeepSpeed it is a plain number

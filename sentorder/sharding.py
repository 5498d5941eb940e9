"""Weights that are split among processes by FSDP2: put together wherever all of them are needed at once.

What is saved is the same, name for name, as from one process, so any number of processes can go on from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds only a part of this model's weights."""
    return isinstance(model, FSDPModule)


@contextlib.contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """For the time being each process holds all weights, and can run the model by itself as often as it likes.

    Else every pass is one of all processes together. Nothing happens to a model that is not sharded.

    Args:
        model: prepared; every process must call this.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    after_forward = [_reshards(part) for part in parts]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part, reshards in zip(parts, after_forward, strict=True):
            part.set_reshard_after_forward(reshards, recurse=False)
            part.reshard()


def _reshards(part: FSDPModule) -> bool:
    """What was told by ``set_reshard_after_forward``; torch has no question for it."""
    return all(group._reshard_after_forward for group in part._get_fsdp_state()._fsdp_param_groups)


def whole_state(state: Any, *, keep: bool) -> Any:
    """The same state with whole tensors on the CPU in the place of split ones; every process must call it.

    Args:
        state: tensors in dictionaries, lists and tuples; plain values stay as they are.
        keep: whether this process wants the whole tensors; one that does not gets empty ones, and needs no memory.
    """
    if isinstance(state, DTensor):
        whole = state.full_tensor()  # all processes together
        return whole.cpu() if keep else torch.empty(0)
    if isinstance(state, Mapping):
        return {name: whole_state(value, keep=keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value, keep=keep) for value in state)
    return state


@torch.no_grad()
def load_whole(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give each process its part of whole weights.

    Args:
        model: sharded.
        weights: name -> whole tensor, the same on each process; of all parameters.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(_part_of(weights[name], like=parameter))


def split_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Keep of whole state that was loaded this process's part, where the parameter is split.

    Args:
        optimizer: prepared; nothing happens where no parameter is split.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            split = isinstance(parameter, DTensor) and torch.is_tensor(value) and value.shape == parameter.shape
            if split and not isinstance(value, DTensor):
                state[name] = _part_of(value, like=parameter)


def _part_of(whole: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return whole
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)  # no sending: all have it

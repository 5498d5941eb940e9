"""Training that is split among processes by FSDP2 or DeepSpeed: told what the loop wants, and weights put together.

FSDP2 splits weights, gradients and optimizer, and leaves the steps to the loop. What is saved is the same, name for
name, as from one process, so any number of processes can go on from it.

DeepSpeed's engine (ZeRO 1 to 3; only 3 splits weights) clips and steps at the end of ``backward``, as Accelerate has
arranged it. It leaves out steps whose gradient is not finite, so the guard of the loop finds the weights as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor


def is_split(accelerator: Accelerator) -> bool:
    """Whether processes hold no weights, or none that lie in memory one by one, as a file of weights wants them."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def _split_by_deepspeed(model: nn.Module) -> list[Any]:
    return [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]


def set_up_fsdp(accelerator: Accelerator) -> None:
    """Where bf16 is asked for: the encoder's layers are gathered and computed in it, gradients are added up in float32.

    Args:
        accelerator: just made, of a launcher that asked for FSDP2.
    """
    if accelerator.mixed_precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def keep_head_in_float32(accelerator: Accelerator, model: nn.Module) -> None:
    """What is no layer of the encoder is computed as on one process: by autocast, and the head in float32.

    Nothing happens without FSDP2 in bf16.

    Args:
        accelerator: of the model.
        model: just prepared.
    """
    if accelerator.distributed_type == DistributedType.FSDP and accelerator.mixed_precision == "bf16":
        state = cast(FSDPModule, model)._get_fsdp_state()
        state._mp_policy = MixedPrecisionPolicy()
        for group in state._fsdp_param_groups:
            group.mp_policy = MixedPrecisionPolicy()
        model.forward = torch.autocast(accelerator.device.type, torch.bfloat16)(model.forward)


def set_up_deepspeed(accelerator: Accelerator) -> None:
    """Fill in what DeepSpeed must know before anything is loaded.

    Args:
        accelerator: just made, of a launcher that asked for DeepSpeed.
    """
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = 1  # asked for by Accelerate; counts in DeepSpeed's own figures alone
    config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True  # for get_state_dict
    if accelerator.mixed_precision == "bf16":
        # As everywhere else bf16 is what is computed with, and not what weights are kept in.
        config["bf16"] = {"enabled": False}
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
        accelerator.state.deepspeed_plugin.set_deepspeed_weakref()  # so that transformers, which loads, knows it too


def clip_by_deepspeed(accelerator: Accelerator, max_grad_norm: float | None) -> None:
    """Let DeepSpeed clip as the loop would; nothing happens without it.

    Args:
        accelerator: before model and optimizer are prepared.
        max_grad_norm: what the norm of the gradient is clipped to; None or 0 for no clipping.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config["gradient_clipping"] = max_grad_norm or 0.0


def mixed_precision_of(accelerator: Accelerator) -> Any:
    """``no``, ``bf16`` or ``fp16``: what is computed with."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return "bf16" if "torch_autocast" in accelerator.state.deepspeed_plugin.deepspeed_config else "no"
    return accelerator.mixed_precision


@contextlib.contextmanager
def adding_up(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Backward passes in here only add to the gradients: more of the step is to come."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        with accelerator.no_sync(model):
            yield
        return
    accelerator.gradient_state._set_sync_gradients(False)  # by which its ``backward`` knows whether to step
    try:
        yield
    finally:
        accelerator.gradient_state._set_sync_gradients(True)


@contextlib.contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """For the time being each process holds all weights, and can run the model by itself as often as it likes.

    Else every pass is one of all processes together. Nothing happens to a model that is not sharded.

    Args:
        model: prepared; every process must call this.
    """
    if split := _split_by_deepspeed(model):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(split), _without_deepspeed_hooks(model):
            yield
        return
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


@contextlib.contextmanager
def _without_deepspeed_hooks(model: nn.Module) -> Iterator[None]:
    """They would split the weights again after each pass, and expect the same passes of every process."""
    taken = []
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            taken.append((hooks, dict(hooks)))
            for key in [key for key, hook in hooks.items() if hook.__module__.startswith("deepspeed.")]:
                del hooks[key]
    try:
        yield
    finally:
        for hooks, before in taken:
            hooks.clear()
            hooks.update(before)


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
        model: the bare one, of training that is split.
        weights: name -> whole tensor, the same on each process; of all parameters.
    """
    if split := _split_by_deepspeed(model):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(split, modifier_rank=0):  # what the first process has is what is split
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        return
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

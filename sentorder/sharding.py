"""Training that is split among processes by FSDP2 or DeepSpeed: told what the loop wants, and weights put together.

FSDP2 splits weights, gradients and optimizer, and leaves the steps to the loop. What is saved is the same, name for
name, as from one process, so any number of processes can go on from it.

DeepSpeed's engine (ZeRO 1 to 3; only 3 splits weights) clips and steps at the end of ``backward``, as Accelerate has
arranged it. It leaves out steps whose gradient is not finite, so the guard of the loop finds the weights as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from .errors import UserError


def is_split(accelerator: Accelerator) -> bool:
    """Whether weights, gradients or the optimizer are split among the processes."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


# --- before anything is loaded ----------------------------------------------------------------------------------------


def set_up_fsdp(accelerator: Accelerator) -> None:
    """Where bf16 is asked for: the encoder's layers are gathered and computed in it, gradients are added up in float32.

    Args:
        accelerator: just made, of a launcher that asked for FSDP2.
    """
    if accelerator.mixed_precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def set_up_deepspeed(accelerator: Accelerator) -> None:
    """Fill in what DeepSpeed must know; the loop alone says what a step is.

    Args:
        accelerator: just made, of a launcher that asked for DeepSpeed.

    Raises:
        UserError: if it would split nothing.
    """
    plugin = accelerator.state.deepspeed_plugin
    if plugin.zero_stage < 1:
        raise UserError("DeepSpeed: ZeRO 0 splits nothing; set zero_stage, as in accelerate_configs/ds_z2.yaml.")
    config = plugin.deepspeed_config
    config["gradient_accumulation_steps"] = 1
    config["train_micro_batch_size_per_gpu"] = 1  # asked for by Accelerate; counts in DeepSpeed's own figures alone
    config["train_batch_size"] = "auto"
    config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True  # for get_state_dict
    if accelerator.mixed_precision == "bf16":
        # As everywhere else bf16 is what is computed with, and not what weights are kept in, or sent.
        config["bf16"] = {"enabled": False}
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    # Else transformers would split the encoder while it loads it, before anybody could look at its weights.
    unset_hf_deepspeed_config()
    plugin.dschf = None


def mixed_precision_of(accelerator: Accelerator) -> Any:
    """``no``, ``bf16`` or ``fp16``: what is computed with."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return "bf16" if "torch_autocast" in accelerator.state.deepspeed_plugin.deepspeed_config else "no"
    return accelerator.mixed_precision


# --- around the preparing of a model ----------------------------------------------------------------------------------


def prepare_split(
    accelerator: Accelerator, model: Any, optimizer: torch.optim.Optimizer, *, max_grad_norm: float | None
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """``accelerator.prepare``, of training that is split or not.

    Args:
        accelerator: of the run.
        model: a :class:`~sentorder.modeling.SentenceOrderer`.
        optimizer: of its parameters.
        max_grad_norm: what DeepSpeed is to clip the norm of the gradient to; None or 0 for no clipping.
    """
    kind = accelerator.distributed_type
    if kind == DistributedType.FSDP and accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap is None:
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(model.backbone.encoder)
    if kind == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config["gradient_clipping"] = max_grad_norm or 0.0
    if is_split(accelerator) and mixed_precision_of(accelerator) == "bf16":
        # What Accelerate puts around the forward pass elsewhere: the head, which switches it off, stays in float32.
        model.forward = torch.autocast(accelerator.device.type, torch.bfloat16)(model.forward)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    if kind == DistributedType.FSDP:
        # Layers are gathered in bf16, but not what stands around them.
        state = prepared._get_fsdp_state()
        state._mp_policy = MixedPrecisionPolicy()
        for group in state._fsdp_param_groups:
            group.mp_policy = MixedPrecisionPolicy()
    return prepared, optimizer


def layer_classes(encoder: nn.Module) -> list[str]:
    """The classes of an encoder's layers, which are gathered one at a time: what the largest list in it holds."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    largest = max(lists, key=lambda layers: sum(weights.numel() for weights in layers.parameters()), default=())
    return sorted({type(layer).__name__ for layer in largest})


# --- in the loop ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def adding_up(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Backward passes in here only add to the gradients: more of the step is to come."""
    kind = accelerator.distributed_type
    if kind == DistributedType.FSDP:  # it adds to the parts; to wait with the sending it would have to keep the whole
        yield
    elif kind == DistributedType.DEEPSPEED:
        accelerator.gradient_state._set_sync_gradients(False)  # by which its ``backward`` knows whether to step
        try:
            yield
        finally:
            accelerator.gradient_state._set_sync_gradients(True)
    else:
        with accelerator.no_sync(model):
            yield


# --- whole weights and states -----------------------------------------------------------------------------------------


def _split_by_deepspeed(model: nn.Module) -> list[Any]:
    return [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]


@contextlib.contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """For the time being each process holds all weights, and can run the model by itself as often as it likes.

    Else every pass is one of all processes together. Nothing happens to a model that is not split.

    Args:
        model: prepared; every process must call this.
    """
    if split := _split_by_deepspeed(model):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(split), _without_deepspeed_hooks(model):
            yield
        return
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    groups = [group for part in parts for group in part._get_fsdp_state()._fsdp_param_groups]
    as_told = [group.post_forward_mesh_info for group in groups]
    root_decides = bool(parts) and parts[0]._get_fsdp_state()._auto_reshard_after_forward
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for group, told in zip(groups, as_told, strict=True):
            group.post_forward_mesh_info = told
        if root_decides:  # what it would have decided in its first pass: the backward pass begins with it anyway
            parts[0].set_reshard_after_forward(False, recurse=False)
        for part in parts:
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
def load_whole(model: nn.Module, weights: dict[str, Any]) -> None:
    """Give each process its part of whole weights.

    Args:
        model: the bare one, of training that is split.
        weights: name -> whole tensor, the same on each process; of all parameters.
    """
    if isinstance(model, FSDPModule):
        set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True))
    elif split := _split_by_deepspeed(model):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(split, modifier_rank=0):  # what the first process has is what is split
            _copy(weights, model)
    else:
        _copy(weights, model)


def _copy(weights: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])


def split_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """This process's part of an optimizer's whole state, where parameters are split; for ``load_state_dict``.

    Args:
        optimizer: prepared.
        state: from :func:`whole_state` of ``state_dict()``, or of an optimizer of one process.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        index: {name: _part_of(value, like=parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": parts}


def _part_of(whole: Any, *, like: torch.Tensor) -> Any:
    if not (isinstance(like, DTensor) and torch.is_tensor(whole) and whole.shape == like.shape):
        return whole
    # Nothing is sent: each process has the whole.
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

"""How an encoder attends: inside of sentences that share one row, in groups of like length, without padding between.

transformers lets anybody register an attention function; this one is called ``sentorder``. Without groups it computes
what ``sdpa`` does. With them the encoder reads all sentences as a single row of tokens, so that whatever looks at one
token at a time (nearly all of its work) computes hardly any padding, and only here the row becomes sentences again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .dropout import dropout_factors

NAME = "sentorder"
SHORT = 0 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 64
"""Tokens of an input up to which plain matrix products are faster on a CPU than its fused kernel, which saves memory
and likes wide registers; with dropout that kernel does without itself, and draws its numbers slowly."""


class Group(NamedTuple):
    """Sentences that stand one after the other in the row, each padded to the longest of them."""

    sentences: int
    width: int
    """Tokens of each."""
    mask: torch.Tensor | None
    """(sentences, 1, 1, width) True where a token is no padding; None if all of them are whole."""


def group_by_length(lengths: Sequence[int], cost: float) -> list[list[int]]:
    """Which sentences to pad to the same length, so that padding and groups together cost least.

    Args:
        lengths: tokens of each sentence.
        cost: of a group, in tokens of padding.

    Returns:
        The sentences of each group, in ascending order of length.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ends = [
        place
        for place in range(1, len(order) + 1)
        if place == len(order) or lengths[order[place]] != lengths[order[place - 1]]
    ]  # sentences of one length are never parted
    tokens = [0]
    for index in order:
        tokens.append(tokens[-1] + lengths[index])
    # The least that the first sentences cost, up to each end, and where their last group begins.
    least, begins = {0: 0.0}, dict[int, int]()
    for end in ends:
        width = lengths[order[end - 1]]
        least[end], begins[end] = min(
            (least[start] + width * (end - start) - (tokens[end] - tokens[start]) + cost, start) for start in least
        )
    groups: list[list[int]] = []
    end = len(order)
    while end > 0:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    groups: Sequence[Group] | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, as ``AttentionInterface`` of transformers calls it.

    Args:
        module: the layer's.
        query: (B, heads, L, size); (1, heads, L, size) with groups, whose tokens fill the row.
        key: like the query, with the same number of heads or a divisor of it.
        value: likewise.
        attention_mask: what transformers made of the batch's mask; None with groups.
        dropout: probability.
        scaling: of the scores; None for the root of the size.
        groups: the sentences of the row; None if the rows of the batch are its inputs.
        sliding_window: with groups, how far from each other tokens begin to be hidden; None for never. (Without them
            the mask has it.)

    Returns:
        (B, L, heads, size), and None for the weights.
    """
    if groups is None:
        return _attend(module, query, key, value, attention_mask, dropout, scaling, **more), None
    sizes = [group.sentences * group.width for group in groups]
    parts = []
    for group, *states in zip(groups, *(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True):
        shape = (group.sentences, group.width)
        q, k, v = (tensor[0].transpose(0, 1).unflatten(0, shape).transpose(1, 2) for tensor in states)
        mask = _in_window(group, sliding_window, query.device)
        parts.append(_attend(module, q, k, v, mask, dropout, scaling, **more).flatten(0, 1))
    return torch.cat(parts)[None], None


def _in_window(group: Group, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """The mask of a group where tokens only see those near to them."""
    if sliding_window is None or group.width <= sliding_window:
        return group.mask
    places = torch.arange(group.width, device=device)
    near = ((places[:, None] - places).abs() < sliding_window).expand(group.sentences, 1, -1, -1)
    return near if group.mask is None else near & group.mask


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
    **more: Any,
) -> torch.Tensor:
    causal = more.get("is_causal", getattr(module, "is_causal", True))
    elsewhere = query.device.type != "cpu" or causal or torch.compiler.is_compiling()
    if elsewhere or (dropout == 0 and key.shape[2] > SHORT):
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **more)[0]
    copies = query.shape[1] // key.shape[1]
    inputs, heads, length, size = query.shape
    q, k, v = (part.flatten(0, 1) for part in (query, repeat_kv(key, copies), repeat_kv(value, copies)))
    scores = torch.bmm(q * (size**-0.5 if scaling is None else scaling), k.transpose(1, 2)).unflatten(
        0, (inputs, heads)
    )
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1)
    if dropout > 0:
        weights = weights * dropout_factors(weights.shape, dropout, weights.dtype)
    return torch.bmm(weights.flatten(0, 1), v).view(inputs, heads, length, -1).transpose(1, 2)


def use_own_attention(encoder: PreTrainedModel) -> None:
    """Let an encoder attend by :func:`attend`, if ``sdpa`` is what it would do."""
    if encoder.config._attn_implementation == "sdpa":
        encoder.set_attn_implementation(NAME)


def takes_groups(encoder: PreTrainedModel) -> bool:
    """Whether an encoder attends by :func:`attend` as things stand, and may be given groups.

    One that is compiled may not: it would be compiled anew for each number of groups.
    """
    return encoder.config._attn_implementation == NAME and encoder._compiled_call_impl is None


def _mask(**given: Any) -> torch.Tensor | None:
    """As ``sdpa`` has it; but to look whether a batch has no padding would be to wait for a GPU, in each pass."""
    if torch.device(given["device"]).type != "cpu":
        given["allow_is_bidirectional_skip"] = False
    mask: torch.Tensor | None = sdpa_mask(**given)
    return mask


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)

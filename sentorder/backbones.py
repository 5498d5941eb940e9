"""From token ids to one state per sentence."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

Pooling = Literal["marker", "mean", "both"]


def pooling_weights(
    token_slots: torch.Tensor, slots: int, pooling: Pooling, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """How much each token's state counts for each slot's state.

    Args:
        token_slots: (B, L) the slot of each token, -1 for padding; the first token of a slot is its marker.
        slots: N.
        pooling: ``marker`` reads the marker token alone, ``mean`` the mean over the slot's tokens, ``both`` their sum.
        dtype: of the token states.

    Returns:
        (B, N, L) of ``dtype``.
    """
    slot_numbers = torch.arange(slots, device=token_slots.device)
    members = (token_slots[:, None, :] == slot_numbers[None, :, None]).to(dtype)
    mean = members / members.sum(dim=-1, keepdim=True).clamp(min=1.0)
    if pooling == "mean":
        return mean
    starts = torch.ones_like(token_slots, dtype=torch.bool)
    starts[:, 1:] = token_slots[:, 1:] != token_slots[:, :-1]
    marker = members * starts[:, None, :]
    return marker if pooling == "marker" else marker + mean


class JointBackbone(nn.Module):
    """All sentences of a document through the encoder at once; then one state per slot.

    Args:
        encoder: any Hugging Face encoder (a ``PreTrainedModel`` whose output has ``last_hidden_state``).
        pooling: how the states of a sentence's tokens become one.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden_size = int(encoder.config.hidden_size)
        self.pooling: Pooling = pooling

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
    ) -> torch.Tensor:
        """The state of each slot, (B, N, H); the shapes of the inputs are those of ``Batch``."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return torch.bmm(pooling_weights(token_slots, slot_mask.shape[1], self.pooling, states.dtype), states)

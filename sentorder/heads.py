"""From one state per sentence to what a method decodes."""

from __future__ import annotations

import torch
from torch import nn

from .contracts import OrderingOutput


class ScoreHead(nn.Module):
    """One score per sentence: the lower, the earlier."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(hidden_size, 1)

    def forward(self, slot_states: torch.Tensor, slot_mask: torch.Tensor) -> OrderingOutput:
        """Scores (B, N) for slot states (B, N, H)."""
        scores = self.score(self.dropout(slot_states)).squeeze(-1)
        return OrderingOutput(slot_states=slot_states, scores=scores)


class PairHead(nn.Module):
    """One antisymmetric logit per pair of sentences: ``f(i, j) - f(j, i)``, positive where i comes first.

    ``f(i, j) = w . gelu(A h_i + B h_j)``, so the pair costs one pass of the encoder, not one per pair.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(hidden_size, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size, bias=False)
        self.logit = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, slot_states: torch.Tensor, slot_mask: torch.Tensor) -> OrderingOutput:
        """Pair logits (B, N, N) for slot states (B, N, H)."""
        states = self.dropout(slot_states)
        pairs = nn.functional.gelu(self.first(states)[:, :, None, :] + self.second(states)[:, None, :, :])
        relation = self.logit(pairs).squeeze(-1)
        return OrderingOutput(slot_states=slot_states, pair_logits=relation - relation.transpose(1, 2))

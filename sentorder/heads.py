"""From one state per sentence to what a method decodes.

A head is a module ``head(slot_states, slot_mask, positions=None) -> OrderingOutput``. Only an autoregressive one looks
at the gold positions, which teach it where there are any.
"""

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

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
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

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """Pair logits (B, N, N) for slot states (B, N, H)."""
        states = self.dropout(slot_states)
        pairs = nn.functional.gelu(self.first(states)[:, :, None, :] + self.second(states)[:, None, :, :])
        relation = self.logit(pairs).squeeze(-1)
        return OrderingOutput(slot_states=slot_states, pair_logits=relation - relation.transpose(1, 2))


class PointerHead(nn.Module):
    """Chooses the sentences one after another, each from those that are left: an autoregressive distribution of orders.

    A GRU reads the sentences chosen so far, beginning with the mean of all. What is asked for next is its state and the
    mean of the sentences that are left; the logit of slot j is ``v . tanh(W state + U left + K h_j)``. Pointer network
    (Vinyals et al., NeurIPS 2015) for sentence ordering (Gong et al., 2016; Logeswaran et al., AAAI 2018).

    Trained with all choices at once (the gold prefix is known); decoded with :meth:`first_memory`, :meth:`choices` and
    :meth:`remember`, see ``decode_choices``.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.start = nn.Linear(hidden_size, hidden_size)
        self.memory = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.left = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.logit = nn.Linear(hidden_size, 1, bias=False)

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """Next-slot logits (B, N, N) for slot states (B, N, H) where positions (B, N) are given, else only the states.

        Row t scores the slots after the t sentences that stand first in the gold order.
        """
        if positions is None:
            return OrderingOutput(slot_states=slot_states)
        gold = torch.argsort(positions.masked_fill(~slot_mask, positions.shape[1]), dim=1)  # padded slots come last
        chosen = self.dropout(slot_states).gather(1, gold[:, :, None].expand_as(slot_states))
        first = self.first_memory(slot_states, slot_mask)
        later, _ = self.memory(chosen, first[None].contiguous())
        memories = torch.cat([first[:, None], later[:, :-1]], dim=1)
        # Row t: the slots that are not among the first t.
        steps = torch.arange(positions.shape[1], device=positions.device)
        left = slot_mask[:, None, :] & (positions[:, None, :] >= steps[None, :, None])
        logits = self.choices(slot_states, memories, left)
        return OrderingOutput(slot_states=slot_states, next_slot_logits=logits)

    def first_memory(self, slot_states: torch.Tensor, slot_mask: torch.Tensor) -> torch.Tensor:
        """(B, H) what is remembered before anything is chosen."""
        mean: torch.Tensor = _mean_of(slot_states, slot_mask[:, None, :])[:, 0]
        return torch.tanh(self.start(mean))

    def remember(self, slot_states: torch.Tensor, memories: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(B, W, H) the memories (B, W, H) after choosing slots (B, W)."""
        batch, width, hidden = memories.shape
        chosen = slot_states.gather(1, slots[:, :, None].expand(batch, width, hidden))
        memory: torch.Tensor = self.memory(chosen.reshape(-1, 1, hidden), memories.reshape(1, -1, hidden))[1]
        return memory.reshape(batch, width, hidden)

    def choices(self, slot_states: torch.Tensor, memories: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        """Logits (B, W, N) of what comes next, -inf for slots that are not left.

        Args:
            slot_states: (B, N, H).
            memories: (B, W, H), one for each prefix.
            left: (B, W, N) bool, the slots that each prefix leaves; a row with none gets zeros.
        """
        states = self.dropout(slot_states)
        asked = self.query(memories) + self.left(_mean_of(states, left))
        logits: torch.Tensor = self.logit(torch.tanh(asked[:, :, None, :] + self.key(states)[:, None, :, :]))
        return logits.squeeze(-1).masked_fill(~left & left.any(dim=-1, keepdim=True), -torch.inf)


def _mean_of(states: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """(B, W, H) means of states (B, N, H) over members (B, W, N)."""
    weights = members.to(states.dtype)
    return torch.bmm(weights / weights.sum(dim=-1, keepdim=True).clamp(min=1.0), states)

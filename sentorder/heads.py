"""From one state per sentence to what a method decodes.

A head is a module ``head(slot_states, slot_mask, positions=None) -> OrderingOutput``. Only an autoregressive one looks
at the gold positions, which teach it where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .contracts import OrderingOutput, Prefixes
from .likelihoods import adjacency_log_probabilities, pair_log_probabilities


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


MOST_FEATURES = 2**25
"""Numbers that a table of sentences by sentences may hold at once: 128 MiB in float32."""


def _in_parts(table: Callable[[slice], torch.Tensor], rows: int, numbers: int) -> torch.Tensor:
    """A table (B, rows, N, ...) whose rows are computed a few at a time, so that memory does not grow with them.

    While learning, what a part went through is computed again for its gradient, unless all fits at once.

    Args:
        table: gives some rows of it.
        rows: how many there are.
        numbers: what each of them takes on the way.
    """
    size = max(1, MOST_FEATURES // max(1, numbers))
    if size >= rows:
        return table(slice(0, rows))
    parts = [slice(start, start + size) for start in range(0, rows, size)]
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(table, part, use_reentrant=False) for part in parts], dim=1)
    return torch.cat([table(part) for part in parts], dim=1)


class PairHead(nn.Module):
    """One antisymmetric logit per pair of sentences: ``f(i, j) - f(j, i)``, positive where i comes first.

    ``f(i, j) = w . gelu(A h_i + B h_j)``, so the pair costs one pass of the encoder, not one per pair. With
    ``adjacency`` a second relation is read from the same features: whether j directly follows i.
    """

    def __init__(self, hidden_size: int, dropout: float, *, adjacency: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(hidden_size, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size, bias=False)
        self.logit = nn.Linear(hidden_size, 2 if adjacency else 1, bias=False)

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """Pair logits (B, N, N), and adjacency logits (B, N, N) if asked for, for slot states (B, N, H)."""
        states = self.dropout(slot_states)
        first, second = self.first(states), self.second(states)

        def logits(rows: slice) -> torch.Tensor:
            pairs = nn.functional.gelu(first[:, rows, None, :] + second[:, None, :, :])
            return self.logit(pairs)  # type: ignore[no-any-return]

        before, *follows = _in_parts(logits, first.shape[1], second.numel()).unbind(dim=-1)
        return OrderingOutput(
            slot_states=slot_states,
            pair_logits=before - before.transpose(1, 2),
            adjacency_logits=follows[0] if follows else None,
        )


WAVES = 16
"""Cosines that describe a position: enough to tell a hundred of them apart."""


class PositionHead(nn.Module):
    """One logit per sentence and position, for documents of any length.

    A position is asked for by where it lies between the first (0) and the last (1): its cosines of rising frequency and
    1/n go through a small network to a query, and its product with the key of a sentence is the logit. (The queries are
    normalised: without, products of two small things hardly begin to learn. Asking by position is the idea of Bin et
    al., NAON, EMNLP Findings 2023, whose positions count from the start.)
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Sequential(
            nn.Linear(WAVES + 1, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
            nn.LayerNorm(hidden_size, bias=False),  # a bias would add the same to all positions
        )
        self.key = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """Position logits (B, N, N) for slot states (B, N, H)."""
        counts = slot_mask.sum(dim=1)[:, None].to(slot_states.dtype)
        places = torch.arange(slot_mask.shape[1], device=slot_mask.device)[None] / (counts - 1).clamp(min=1)
        waves = torch.cos(places[..., None] * math.pi * torch.arange(WAVES, device=slot_mask.device))
        size = (1 / counts.clamp(min=1))[..., None].expand(*places.shape, 1)
        queries = self.query(torch.cat([waves, size], dim=-1))
        keys = self.key(self.dropout(slot_states))
        logits = torch.bmm(keys, queries.transpose(1, 2)) / math.sqrt(keys.shape[-1])
        return OrderingOutput(slot_states=slot_states, position_logits=logits)


class Reading(NamedTuple):
    """What a pointer knows of the documents before anything is chosen."""

    states: torch.Tensor
    """(B, N, H)"""
    keys: torch.Tensor
    """(B, N, H) by which a sentence is found."""
    before: torch.Tensor | None = None
    """(B, N, N) the probability that one sentence stands before the other; None if pairs are not asked."""
    follows: torch.Tensor | None = None
    """(B, N, N) the probability that one is directly followed by the other, likewise."""


class PointerHead(nn.Module):
    """Chooses the sentences one after another, each from those that are left: an autoregressive distribution of orders.

    A GRU reads the sentences chosen so far, beginning with the mean of all. What is asked for next is its state and the
    mean of the sentences that are left; the logit of slot j is ``v . tanh(W state + U left + K h_j)``. Pointer network
    (Vinyals et al., NeurIPS 2015) for sentence ordering (Gong et al., 2016; Logeswaran et al., AAAI 2018).

    Trained with all choices at once (the gold prefix is known); decoded with :meth:`read`, :meth:`first_memory`,
    :meth:`choices` and :meth:`remember`, see ``decode_choices``.
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
        self.relations: nn.Linear | None = None  # reads the figures of relations_of

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """Next-slot logits (B, N, N) for slot states (B, N, H) where positions (B, N) are given, else only the states.

        Row t scores the slots after the t sentences that stand first in the gold order.
        """
        output = OrderingOutput(slot_states=slot_states)
        if positions is not None:
            output.next_slot_logits = self.taught(output, slot_mask, positions)
        return output

    def taught(self, output: OrderingOutput, slot_mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(B, N, N) the logits of every choice, each after the gold prefix."""
        states = _states(output)
        gold = torch.argsort(positions.masked_fill(~slot_mask, positions.shape[1]), dim=1)  # padded slots come last
        chosen_states = self.dropout(states).gather(1, gold[:, :, None].expand_as(states))
        reading = self.read(output, slot_mask)
        first = self.first_memory(reading, slot_mask)
        later, _ = self.memory(chosen_states, first[None].contiguous())
        # Row t: the slots that are not among the first t.
        steps = torch.arange(positions.shape[1], device=positions.device)
        later_on = positions[:, None, :] >= steps[None, :, None]
        prefixes = Prefixes(
            torch.cat([first[:, None], later[:, :-1]], dim=1),
            slot_mask[:, None, :] & ~later_on,
            slot_mask[:, None, :] & later_on,
            nn.functional.pad(gold[:, :-1], (1, 0), value=-1),
            positions.shape[1],
        )
        return self.choices(reading, prefixes)

    def read(self, output: OrderingOutput, slot_mask: torch.Tensor) -> Reading:
        """What the choices need to know of the documents."""
        states = _states(output)
        return Reading(states, self.key(self.dropout(states)))

    def first_memory(self, reading: Reading, slot_mask: torch.Tensor) -> torch.Tensor:
        """(B, H) what is remembered before anything is chosen."""
        mean: torch.Tensor = _mean_of(reading.states, slot_mask[:, None, :])[:, 0]
        return torch.tanh(self.start(mean))

    def remember(self, reading: Reading, memories: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(B, W, H) the memories (B, W, H) after choosing slots (B, W)."""
        batch, width, hidden = memories.shape
        chosen = reading.states.gather(1, slots[:, :, None].expand(batch, width, hidden))
        memory: torch.Tensor = self.memory(chosen.reshape(-1, 1, hidden), memories.reshape(1, -1, hidden))[1]
        return memory.reshape(batch, width, hidden)

    def choices(self, reading: Reading, prefixes: Prefixes) -> torch.Tensor:
        """Logits (B, W, N) of what comes next, -inf for slots that are not left; zeros where none is."""
        asked = self.query(prefixes.memories) + self.left(_mean_of(self.dropout(reading.states), prefixes.left))
        keys, figures = reading.keys, self.relations_of(reading, prefixes)

        # Where few slots are left, only these are compared.
        all_of_them = prefixes.most == keys.shape[1]
        few = prefixes.left if all_of_them else prefixes.left.argsort(dim=-1, descending=True)[..., : prefixes.most]
        documents = torch.arange(len(keys), device=keys.device)[:, None, None]

        def rows_of(rows: slice) -> torch.Tensor:
            others = keys[:, None] if all_of_them else keys[documents, few[:, rows]]
            compared = asked[:, rows, None, :] + others
            if self.relations is not None and figures is not None:
                relations = figures[:, rows]
                if not all_of_them:
                    relations = relations.take_along_dim(few[:, rows, :, None], dim=2)
                compared += self.relations(relations)
            return self.logit(compared.tanh_())  # type: ignore[no-any-return]

        logits = _in_parts(rows_of, asked.shape[1], keys.numel()).squeeze(-1)
        if not all_of_them:
            logits = logits.new_zeros(prefixes.left.shape).scatter(2, few, logits)
        return logits.masked_fill(~prefixes.left & prefixes.left.any(dim=-1, keepdim=True), -torch.inf)

    def relations_of(self, reading: Reading, prefixes: Prefixes) -> torch.Tensor | None:
        """(B, W, N, R) figures that speak for a slot beside its state; here there are none."""
        return None


class RelationalPointerHead(PointerHead):
    """A pointer that also knows how each candidate stands to the sentences chosen and left: BERSON's idea in one pass.

    Of the probabilities that a :class:`PairHead` gives for "precedes" and "directly follows", three figures speak for
    slot j: how surely it comes after those chosen, how surely before those left, and how surely right after the last.
    Cui et al., "BERT-enhanced Relational Sentence Ordering Network" (EMNLP 2020), whose pairs take a pass each.
    With ``positions`` it has a :class:`PositionHead` as well: all relations from one pass of the encoder.
    """

    def __init__(self, hidden_size: int, dropout: float, *, positions: bool = False) -> None:
        super().__init__(hidden_size, dropout)
        self.pairs = PairHead(hidden_size, dropout, adjacency=True)
        self.positions = PositionHead(hidden_size, dropout) if positions else None
        self.relations = nn.Linear(3, hidden_size, bias=False)

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """As :class:`PointerHead`, with pair, adjacency and (if it has them) position logits."""
        output: OrderingOutput = self.pairs(slot_states, slot_mask)
        if self.positions is not None:
            output.position_logits = self.positions(slot_states, slot_mask).position_logits
        if positions is not None:
            output.next_slot_logits = self.taught(output, slot_mask, positions)
        return output

    def read(self, output: OrderingOutput, slot_mask: torch.Tensor) -> Reading:
        """What the choices need to know of the documents, pairs among it."""
        assert output.pair_logits is not None and output.adjacency_logits is not None
        reading = super().read(output, slot_mask)
        before = pair_log_probabilities(output.pair_logits).exp()
        follows = adjacency_log_probabilities(output.adjacency_logits, slot_mask).exp()
        return reading._replace(before=before, follows=follows)

    def relations_of(self, reading: Reading, prefixes: Prefixes) -> torch.Tensor:
        """(B, W, N, 3) what the pairs say."""
        before, follows = reading.before, reading.follows
        assert before is not None and follows is not None
        after_chosen = _mean_of(before, prefixes.chosen)
        others = prefixes.left.sum(dim=-1, keepdim=True)
        # A slot is half before itself: that is taken out again.
        before_left = (torch.bmm(prefixes.left.to(before.dtype), before.transpose(1, 2)) - 0.5) / (others - 1).clamp(
            min=1
        )
        after_last = follows.gather(1, prefixes.last.clamp(min=0)[:, :, None].expand_as(before_left))
        after_last = after_last.masked_fill((prefixes.last < 0)[:, :, None], 0.0)
        return torch.stack([after_chosen, before_left, after_last], dim=-1)


class StateHead(nn.Module):
    """The states as they are: for ways to order that learn nothing."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()

    def forward(
        self, slot_states: torch.Tensor, slot_mask: torch.Tensor, positions: torch.Tensor | None = None
    ) -> OrderingOutput:
        """Slot states (B, N, H)."""
        return OrderingOutput(slot_states=slot_states)


def _states(output: OrderingOutput) -> torch.Tensor:
    assert output.slot_states is not None
    return output.slot_states


def _mean_of(values: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """(B, W, H) means of values (B, N, H) over members (B, W, N)."""
    weights = members.to(values.dtype)
    return torch.bmm(weights / weights.sum(dim=-1, keepdim=True).clamp(min=1.0), values)

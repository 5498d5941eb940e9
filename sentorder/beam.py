"""Beam search through an autoregressive head: sentence after sentence, the best beginnings are kept."""

from __future__ import annotations

import torch

from .contracts import AutoregressiveHead, Decoded, OrderingOutput, Prefixes
from .likelihoods import (
    adjacency_log_probabilities,
    pair_log_probabilities,
    position_log_probabilities,
    refuse_non_finite,
)
from .passes import reorder_output

BEAMS = 8
"""Prefixes that are kept of each document if one order is asked for."""
WIDEST = 128
"""How many are kept at the most for several orders, unless even more are asked for."""


def decode_choices(
    output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1, head: AutoregressiveHead
) -> list[list[Decoded]]:
    """The orders to which the head gives the highest probability, among those that the beam keeps.

    The score is the log probability of the order. Confidence is how much surer than a guess the choices were: the mean
    over an order's choices of ``(p - 1/m) / (1 - 1/m)``, where p is the probability of the sentence chosen and m the
    number of those that were left; 1 where there is nothing to choose.

    Args:
        output: with ``slot_states`` and whatever else the head reads.
        slot_mask: (B, N).
        k: how many orders of each document; a document of n sentences has at most n!.
        head: that made the output.
    """
    return _search(output, slot_mask, k, head, together=False)


def decode_together(
    output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1, head: AutoregressiveHead
) -> list[list[Decoded]]:
    """The orders that choices, pairs, neighbours and positions together speak for, among those that the beam keeps.

    The score is the sum of four log probabilities: of the order under the head (as in :func:`decode_choices`), of its
    neighbours, of its positions (where the head gives any), and of its pairs, these times 2/n, for there are n/2 pairs
    to a choice. Confidence is that of the choices. Arguments as for :func:`decode_choices`.
    """
    return _search(output, slot_mask, k, head, together=True)


class _Relations:
    """What pairs, neighbours and positions add when a slot is put behind a prefix.

    What every order earns is taken out (``constant``): prefixes of different sentences are compared, and one that has
    put down many uncertain pairs, which cost whichever comes first, would seem worse than it is.
    """

    def __init__(self, output: OrderingOutput, slot_mask: torch.Tensor) -> None:
        assert output.pair_logits is not None and output.adjacency_logits is not None
        counts = slot_mask.sum(dim=1)[:, None, None].clamp(min=1)
        both = slot_mask[:, :, None] & slot_mask[:, None, :]
        apart = both & ~torch.eye(slot_mask.shape[1], dtype=torch.bool, device=slot_mask.device)
        pairs = (pair_log_probabilities(output.pair_logits.float()) * 2 / counts).masked_fill(~apart, 0.0)
        either = (pairs + pairs.transpose(1, 2)) / 2
        # A pair is decided when the first of the two is put down.
        self.before = pairs - either
        self.constant = either.sum(dim=(1, 2)) / 2
        self.follows = adjacency_log_probabilities(output.adjacency_logits.float(), slot_mask)
        self.positions = None
        if output.position_logits is not None:
            positions = position_log_probabilities(output.position_logits.float(), slot_mask).masked_fill(~both, 0.0)
            of_slot, of_place = (positions.sum(dim=axis, keepdim=True) / counts for axis in (2, 1))
            mean = of_slot.sum(dim=1, keepdim=True) / counts
            self.positions = (positions - of_slot - of_place + mean).masked_fill(~both, 0.0)
            self.constant = self.constant + (mean * counts)[:, 0, 0]

    def gains(self, prefixes: Prefixes, step: int) -> torch.Tensor:
        """(B, W, N) for each slot that could come next."""
        gains = torch.bmm(prefixes.left.to(self.before.dtype), self.before.transpose(1, 2))
        if step > 0:
            gains = gains + self.follows.gather(1, prefixes.last.clamp(min=0)[:, :, None].expand_as(gains))
        if self.positions is not None:
            gains = gains + self.positions[:, None, :, step]
        return gains


@torch.no_grad()
def _search(
    output: OrderingOutput, slot_mask: torch.Tensor, k: int, head: AutoregressiveHead, *, together: bool
) -> list[list[Decoded]]:
    for values in (output.slot_states, output.pair_logits, output.adjacency_logits, output.position_logits):
        if values is not None:
            refuse_non_finite(values[slot_mask])
    # Numbered anew at random, as in decoding.py: a tie then falls to no particular slot.
    labels = torch.rand(slot_mask.shape, generator=torch.Generator().manual_seed(0)).to(slot_mask.device)
    labels = labels.masked_fill(~slot_mask, torch.inf).argsort(dim=1, stable=True)
    output = reorder_output(output, labels)
    relations = _Relations(output, slot_mask) if together else None
    batch, slots = slot_mask.shape
    device = slot_mask.device
    # The tail of a beam is poor: a wider one finds more of the k best. Its memory is that of (B, width, N, M).
    width = max(BEAMS, k, min(4 * k, WIDEST))
    counts = slot_mask.sum(dim=1)
    rows = torch.arange(batch, device=device)[:, None]

    reading = head.read(output, slot_mask)
    prefixes = Prefixes(  # one of each document, the empty one
        head.first_memory(reading, slot_mask)[:, None],
        torch.zeros_like(slot_mask)[:, None],
        slot_mask[:, None].clone(),
        torch.full((batch, 1), -1, dtype=torch.long, device=device),
        slots,
    )
    scores = torch.zeros(batch, 1, device=device)
    surplus = torch.zeros(batch, 1, device=device)  # summed confidence of the choices
    orders = torch.zeros(batch, 1, slots, dtype=torch.long, device=device)
    for step in range(slots):
        if step + 1 < slots:
            log_p = torch.log_softmax(head.choices(reading, prefixes).float(), dim=-1)
        else:  # the last sentence is no choice
            log_p = torch.zeros_like(prefixes.left, dtype=torch.float32).masked_fill(~prefixes.left, -torch.inf)
        gained = log_p if relations is None else log_p + relations.gains(prefixes, step)
        # A document that is complete has one candidate per prefix, itself.
        complete = (counts <= step)[:, None, None]
        stay = torch.full_like(log_p, -torch.inf)
        stay[..., 0] = 0.0
        gained = torch.where(complete, stay, gained)
        guess = 1.0 / (counts - step).clamp(min=2)[:, None, None]
        surer = torch.where((counts - step > 1)[:, None, None], (log_p.exp() - guess) / (1 - guess), 0.0)

        candidates = (scores[:, :, None] + gained).flatten(1)
        scores, best = candidates.topk(min(width, candidates.shape[1]), dim=1)
        prefix, slot = best // slots, best % slots
        surplus = surplus[rows, prefix] + surer[rows, prefix, slot]
        orders = orders[rows, prefix]
        orders[:, :, step] = slot
        chosen = torch.nn.functional.one_hot(slot, slots).bool()
        memories = prefixes.memories[rows, prefix]
        prefixes = Prefixes(
            head.remember(reading, memories, slot) if step + 2 < slots else memories,
            prefixes.chosen[rows, prefix] | (chosen & slot_mask[:, None]),
            prefixes.left[rows, prefix] & ~chosen,
            slot,
            slots - step - 1,
        )

    if relations is not None:
        scores = scores + relations.constant[:, None]
    choices = (counts - 1).clamp(min=1)[:, None]
    confidence = torch.where(counts[:, None] > 1, (surplus / choices).clamp(0.0, 1.0), 1.0)
    orders = labels[:, None].expand_as(orders).gather(2, orders)
    found = zip(orders.tolist(), scores.tolist(), confidence.tolist(), counts.tolist(), strict=True)
    return [
        [
            Decoded(order[:n], score, certainty)
            for order, score, certainty in list(zip(*ranking, strict=True))[:k]
            if score > -torch.inf
        ]
        for *ranking, n in found
    ]

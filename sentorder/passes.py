"""Several passes over the same documents, each with the slots in another order, averaged: accuracy bought with time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .contracts import AutoregressiveHead, Batch, OrderingOutput, Prefixes


def reorder_batch(batch: Batch, slots: torch.Tensor) -> Batch:
    """The batch in which slot i holds the sentence that was in slot ``slots[:, i]``.

    Args:
        batch: as a collator makes it.
        slots: (B, N) permutations that leave padded slots where they are.
    """
    new_slots = torch.argsort(slots, dim=1)  # where each old slot goes
    reordered = Batch(**batch)
    reordered["sources"] = batch["sources"].gather(1, slots)
    if "positions" in batch:
        reordered["positions"] = batch["positions"].gather(1, slots)
    token_slots = batch["token_slots"]
    if token_slots.ndim == 3:  # a sentence per row
        index = slots[:, :, None].expand_as(token_slots)
        reordered["input_ids"] = batch["input_ids"].gather(1, index)
        reordered["attention_mask"] = batch["attention_mask"].gather(1, index)
        numbers = torch.arange(slots.shape[1], device=slots.device)[None, :, None]
        reordered["token_slots"] = torch.where(token_slots.gather(1, index) >= 0, numbers, -1)
        return reordered
    padding = token_slots < 0
    moved = new_slots.gather(1, token_slots.clamp(min=0)).masked_fill(padding, slots.shape[1])
    index = torch.argsort(moved, dim=1, stable=True)
    reordered["input_ids"] = batch["input_ids"].gather(1, index)
    reordered["attention_mask"] = batch["attention_mask"].gather(1, index)
    reordered["token_slots"] = moved.masked_fill(padding, -1).gather(1, index)
    return reordered


def reorder_output(output: OrderingOutput, slots: torch.Tensor) -> OrderingOutput:
    """The output whose slot i is slot ``slots[:, i]`` of the given one.

    Args:
        output: of B documents.
        slots: (B, N) permutations.
    """

    def rows(values: torch.Tensor) -> torch.Tensor:
        return values.gather(1, slots.view(*slots.shape, *[1] * (values.ndim - 2)).expand_as(values))

    def columns(values: torch.Tensor) -> torch.Tensor:
        return values.gather(2, slots[:, None, :].expand_as(values))

    along = {
        "slot_states": rows,
        "scores": rows,
        "pair_logits": lambda values: columns(rows(values)),
        "adjacency_logits": lambda values: columns(rows(values)),
        "position_logits": rows,
        "next_slot_logits": columns,
    }
    return OrderingOutput(**{name: along[name](values) for name, values in output.items()})


def shuffled_slots(slot_mask: torch.Tensor, number: int) -> torch.Tensor:
    """The order of the slots in pass ``number``: 0 as they are, 1 reversed, then both turned by n/2, by n/4, ...

    The slots of a batch are in random order already, so what matters is that each sentence gets to stand in many places
    and on both sides of each other one: the reversed order does that best.

    Returns:
        (B, N) permutations that leave padded slots where they are.
    """
    counts = slot_mask.sum(dim=1, keepdim=True)
    places = torch.arange(slot_mask.shape[1], device=slot_mask.device)[None].expand_as(slot_mask)
    turned = (places + (counts * _halving(number // 2)).long()) % counts.clamp(min=1)
    if number % 2:
        turned = counts - 1 - turned
    return torch.where(slot_mask, turned, places)


def _halving(number: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, 5/8, ...: each new one far from those before (van der Corput's sequence)."""
    share, unit = 0.0, 0.5
    while number:
        share, unit, number = share + unit * (number % 2), unit / 2, number // 2
    return share


def average(outputs: list[OrderingOutput]) -> OrderingOutput:
    """One output from those of several passes: logits and scores averaged, the slot states side by side.

    The choices of an autoregressive head become the normalised geometric mean of their probabilities.
    """
    if len(outputs) == 1:
        return outputs[0]
    merged = {}
    for name in outputs[0]:
        values = [output[name] for output in outputs]
        if name == "slot_states":
            merged[name] = torch.cat(values, dim=-1)
        elif name == "next_slot_logits":
            merged[name] = torch.stack(values).log_softmax(dim=-1).mean(dim=0)
        else:
            merged[name] = torch.stack(values).mean(dim=0)
    return OrderingOutput(**merged)


class HeadOverPasses:
    """An autoregressive head that reads several passes side by side, and chooses by the mean of what it would say."""

    def __init__(self, head: AutoregressiveHead, passes: int) -> None:
        self.head = head
        self.passes = passes

    def read(self, output: OrderingOutput, slot_mask: torch.Tensor) -> list[Any]:
        """What the head reads in each pass."""
        assert output.slot_states is not None
        return [
            self.head.read(OrderingOutput(**{**output, "slot_states": states}), slot_mask)
            for states in output.slot_states.chunk(self.passes, dim=-1)
        ]

    def first_memory(self, reading: list[Any], slot_mask: torch.Tensor) -> torch.Tensor:
        """(B, passes x M)."""
        return torch.cat([self.head.first_memory(part, slot_mask) for part in reading], dim=-1)

    def choices(self, reading: list[Any], prefixes: Prefixes) -> torch.Tensor:
        """(B, W, N) the mean of the log probabilities that the passes give."""
        memories = prefixes.memories.chunk(self.passes, dim=-1)
        logits = [
            self.head.choices(part, prefixes._replace(memories=memory))
            for part, memory in zip(reading, memories, strict=True)
        ]
        return torch.stack(logits).log_softmax(dim=-1).mean(dim=0)

    def remember(self, reading: list[Any], memories: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(B, W, passes x M)."""
        parts = zip(reading, memories.chunk(self.passes, dim=-1), strict=True)
        return torch.cat([self.head.remember(part, memory, slots) for part, memory in parts], dim=-1)


def run_passes(
    model: Callable[..., OrderingOutput],
    batch: Batch,
    *,
    permutations: int,
    refeeds: int,
    best_orders: Callable[[OrderingOutput, torch.Tensor], list[list[int]]],
) -> OrderingOutput:
    """The averaged output of ``permutations + refeeds`` passes, in the slots of the batch.

    Args:
        model: ``model(**batch)``.
        batch: as a collator makes it.
        permutations: how many orders of the slots to average over, see :func:`shuffled_slots`.
        refeeds: how often the best order so far is then given as the order of the slots; each such pass joins the
            average.
        best_orders: (output, slot mask) -> the best order of each document.
    """
    mask = batch["slot_mask"]
    outputs: list[OrderingOutput] = []
    for number in range(permutations + refeeds):
        if number < permutations:
            slots = shuffled_slots(mask, number)
        else:
            slots = shuffled_slots(mask, 0).clone()
            for row, order in enumerate(best_orders(average(outputs), mask)):
                slots[row, : len(order)] = torch.tensor(order, device=slots.device)
        output = model(**(batch if number == 0 else reorder_batch(batch, slots)))
        outputs.append(reorder_output(output, torch.argsort(slots, dim=1)))
    return average(outputs)

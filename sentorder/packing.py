"""Short inputs put side by side into rows of an encoder, so that little of its work is padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Which inputs share a row: each where it leaves the least room, the longest first (best fit decreasing).

    Args:
        lengths: of each input, 1 to ``width`` tokens.
        width: of a row.

    Returns:
        The inputs of each row. At most 11/9 of the fewest rows possible, and four more (Johnson, 1973).
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is free in each row, ascending
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        fitting = bisect_left(room, (lengths[index], 0))
        if fitting == len(room):
            free, row = width, len(rows)
            rows.append([])
        else:
            free, row = room.pop(fitting)
        rows[row].append(index)
        insort(room, (free - lengths[index], row))
    return rows

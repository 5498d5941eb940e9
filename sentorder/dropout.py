"""Dropout that costs a CPU little: the same distribution as torch's, from half as many random bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

LEVELS = 2**16
"""Of a random number that decides about one value."""


def dropout_factors(shape: Sequence[int], p: float, dtype: torch.dtype) -> torch.Tensor:
    """What each value of a tensor on the CPU is multiplied with: 0 with probability ``p``, else what keeps the mean.

    torch draws a number of 32 bits for each value with a generator that is not vectorised; here four values share one
    of 64. Both come from torch's generator, so a checkpoint that has its state goes on with the same numbers.

    Args:
        shape: of the tensor.
        p: 0 to 1, taken to the nearest multiple of 1 / 65536.
        dtype: of the tensor.
    """
    values = 1
    for size in shape:
        values *= size
    drawn = torch.empty(-(-values // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:values]
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return torch.zeros(*shape, dtype=dtype)
    kept = drawn >= dropped - LEVELS // 2
    return kept.to(dtype).mul_(LEVELS / (LEVELS - dropped)).view(*shape)


class Dropout(nn.Dropout):
    """torch's own, but on a CPU by :func:`dropout_factors`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The tensor with some of its values at 0, in training mode; any shape."""
        if not (self.training and self.p > 0 and input.device.type == "cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        return input * dropout_factors(input.shape, self.p, input.dtype)


def make_dropout_cheap(model: nn.Module) -> None:
    """Put :class:`Dropout` into the place of torch's own, in all modules of a model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))

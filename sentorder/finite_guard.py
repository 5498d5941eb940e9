"""Keeps steps that are not finite from the weights, without waiting for the device in every step."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is infinite or not a number; raised before it could reach the weights."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


SMALLEST_SCALE = 2.0**-16
"""Of an fp16 scaler: a gradient that overflows even then is beyond 4e9."""


class FiniteGuard:
    """Keeps a loss or gradient that is not finite from the weights, and says so by an error.

    Loss and norm are the same on every process, so that all of them stop. In fp16 the scaler deals with overflow.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        optimizer: torch.optim.Optimizer,
        every: int,
        max_skipped_steps: int,
        skipped_in_a_row: int = 0,
    ) -> None:
        self.scaler = accelerator.scaler
        self.optimizer: Any = getattr(optimizer, "optimizer", optimizer)  # the one that Accelerate has wrapped
        skips = getattr(self.optimizer, "_step_supports_amp_scaling", False) and self.scaler is None
        split = accelerator.distributed_type == DistributedType.FSDP  # whose parts do not go with a plain found_inf
        self.every = every if skips and not split else 1
        self.max_skipped_steps = max_skipped_steps
        self.skipped_in_a_row = torch.full((), float(skipped_in_a_row), device=accelerator.device)
        # Number, loss and gradient norm of the first step that was one too many; zeros as long as there is none.
        self.failed = torch.zeros(3, device=accelerator.device)
        self.yes, self.no = (torch.tensor(answer, device=accelerator.device) for answer in (True, False))

    @property
    def leaves_it_to_the_optimizer(self) -> bool:
        """Whether scaler or optimizer skip a step by themselves, so that nobody has to wait for the device."""
        return self.scaler is not None or self.every > 1

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        """Whatever happens, leave no optimizer behind that skips its steps."""
        if hasattr(self.optimizer, "found_inf"):
            del self.optimizer.found_inf

    def check(self, number: int, loss: torch.Tensor, gradient_norm: torch.Tensor, *, wait: bool) -> torch.Tensor:
        """Look at a step before the optimizer makes it; the host waits every so many steps, or where told to.

        Returns:
            0-dim bool: whether the step may reach the weights.
        """
        if self.every == 1:
            return self._check_at_once(number, float(loss), float(gradient_norm))
        finite = torch.isfinite(loss) & torch.isfinite(gradient_norm)
        self.skipped_in_a_row = torch.where(finite, torch.zeros_like(self.skipped_in_a_row), self.skipped_in_a_row + 1)
        fine = (self.failed[0] > 0) | (self.skipped_in_a_row <= self.max_skipped_steps)
        here = torch.stack([torch.full_like(loss, number), loss, gradient_norm.to(loss)])
        self.failed = torch.where(fine, self.failed, here)
        finite = finite & (self.failed[0] == 0)
        # A fused optimizer reads this on the device and leaves the weights alone, in every step after a failure.
        self.optimizer.found_inf = (~finite).float()
        if number % self.every == 0 or wait:
            self.look()
        return finite

    def _check_at_once(self, number: int, loss: float, gradient_norm: float) -> torch.Tensor:
        """The same where the host waits for each step anyway: plain numbers are quicker than tensors of one."""
        finite = fine = math.isfinite(loss) and math.isfinite(gradient_norm)
        if self.scaler is not None:
            # It tries another scale where gradients overflow, and fails when there is none left to try.
            fine = math.isfinite(loss) and self.scaler.get_scale() > SMALLEST_SCALE
        if not fine:
            self.skipped_in_a_row = self.skipped_in_a_row + 1  # the old one belongs to a step that was yielded
            if self.skipped_in_a_row > self.max_skipped_steps:
                raise self._error(number, loss, gradient_norm)
        elif self.skipped_in_a_row > 0:
            self.skipped_in_a_row = torch.zeros_like(self.skipped_in_a_row)
        return self.yes if finite else self.no

    def look(self) -> None:
        """Wait for the device, and raise the error if a step has failed."""
        if self.failed[0] > 0:
            number, loss, gradient_norm = self.failed.tolist()
            raise self._error(int(number), loss, gradient_norm)

    def _error(self, number: int, loss: float, gradient_norm: float) -> NonFiniteError:
        row = f" That is step {self.max_skipped_steps + 1} of this kind in a row." if self.max_skipped_steps else ""
        return NonFiniteError(
            f"Step {number}: the loss is {loss:g} and the norm of the gradient {gradient_norm:g}.{row} It did not "
            "reach the weights. Try a lower learning rate, clipping or more warm-up.",
            number,
        )

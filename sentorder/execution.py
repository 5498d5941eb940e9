"""How an encoder computes what it computes: attention, memory, compilation. None of it changes what is learned."""

from __future__ import annotations

from typing import Any

from .errors import UserError, first_line


def set_execution(
    encoder: Any, *, attn_implementation: str | None, gradient_checkpointing: bool, torch_compile: bool
) -> None:
    """Change how an encoder computes, in place; its weights keep their names.

    Args:
        encoder: of transformers.
        attn_implementation: ``eager`` or ``sdpa``; None for what transformers chooses.
        gradient_checkpointing: compute each layer once more in the backward pass, instead of keeping what it gave.
        torch_compile: let ``torch.compile`` make kernels, for inputs of any shape.

    Raises:
        UserError: if the encoder cannot.
    """
    kind = encoder.config.model_type
    if attn_implementation is not None:
        try:
            encoder.set_attn_implementation(attn_implementation)
        except (ValueError, ImportError) as error:
            raise UserError(
                f"--attn_implementation {attn_implementation}: not for an encoder of type {kind} ({first_line(error)})."
            ) from None
    if gradient_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise UserError(f"--gradient_checkpointing: encoders of type {kind} cannot do that; leave it out.")
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    if torch_compile:
        encoder.compile(dynamic=True)

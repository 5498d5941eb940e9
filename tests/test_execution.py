"""The encoder computes in other ways, and what is learned stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from sentorder import TrainArguments, UserError
from sentorder.execution import set_execution
from sentorder.train import train
from tests.conftest import read_metrics


def trained(tiny_encoder: str, small_data: str, folder: Path, **more: object) -> tuple[list[float], dict]:
    """The losses and the weights of a short run."""
    arguments = TrainArguments(
        model_name_or_path=tiny_encoder,
        dataset=small_data,
        max_steps=3,
        logging_steps=1,
        save_strategy="no",
        eval_strategy="no",
        output_dir=str(folder),
        **more,  # type: ignore[arg-type]
    )
    result = train(arguments)
    losses = [row["loss"] for row in read_metrics(folder) if "loss" in row]
    return losses, load_file(result.model_dir / "model.safetensors")


@pytest.mark.parametrize(
    ("backbone", "dropout"), [("hierarchical", 0.0), ("joint", 0.1)], ids=["hierarchical", "joint, with dropout"]
)
def test_checkpointing_gradients_changes_no_number(
    tiny_encoder: str,
    small_data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    dropout: float,
) -> None:
    same = {"backbone": backbone, "dropout": dropout}
    losses, weights = trained(tiny_encoder, small_data, tmp_path / "usual", **same)
    calls = 0
    forward = BertSelfAttention.forward

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += torch.is_grad_enabled()
        return forward(*given, **named)

    monkeypatch.setattr(BertSelfAttention, "forward", counted)
    again, others = trained(tiny_encoder, small_data, tmp_path / "less", gradient_checkpointing=True, **same)
    assert calls == 3 * 2 * 2  # steps, layers, and each of them twice
    assert again == losses
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_attention_is_computed_in_another_way(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    losses, _ = trained(tiny_encoder, small_data, tmp_path / "sdpa", attn_implementation="sdpa")
    again, _ = trained(tiny_encoder, small_data, tmp_path / "eager", attn_implementation="eager")
    assert again == pytest.approx(losses, rel=1e-3)
    encoder = AutoModel.from_pretrained(tiny_encoder)
    for name in ("eager", "sdpa"):
        set_execution(encoder, attn_implementation=name, gradient_checkpointing=False, torch_compile=False)
        assert encoder.config._attn_implementation == name


@pytest.mark.slow
def test_a_compiled_encoder(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    losses, weights = trained(tiny_encoder, small_data, tmp_path / "usual")
    again, others = trained(tiny_encoder, small_data, tmp_path / "compiled", torch_compile=True)
    assert again == pytest.approx(losses, rel=1e-3)
    assert weights.keys() == others.keys()


def test_an_encoder_that_cannot(tiny_encoder: str) -> None:
    encoder = AutoModel.from_pretrained(tiny_encoder)
    encoder.supports_gradient_checkpointing = False
    plain = {"attn_implementation": None, "torch_compile": False}
    with pytest.raises(UserError, match="--gradient_checkpointing: encoders of type bert cannot do that"):
        set_execution(encoder, gradient_checkpointing=True, **plain)  # type: ignore[arg-type]
    set_execution(encoder, gradient_checkpointing=False, **plain)  # type: ignore[arg-type]

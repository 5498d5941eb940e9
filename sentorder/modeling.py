"""The model: encoder, pooling and head in one ``PreTrainedModel`` whose checkpoint owns all that using it needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast, get_args

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from .backbones import ALL_IN_ONE, Pooling
from .contracts import OrderingOutput
from .cuda_graphs import Recordings
from .data.collation import Collator, Shape
from .data.tokenization import tokenize
from .dropout import make_dropout_cheap
from .encoders import (
    add_missing_embeddings,
    encoder_from_config,
    load_encoder,
    load_tokenizer,
    resolve_encoder,
    set_dropout,
    window_length,
)
from .errors import UserError
from .inference import OrderingMixin
from .methods import DEFAULT_METHOD, UNTRAINED, get_backbone, get_method
from .model_files import MODEL_TYPE, check_is_orderer, is_orderer

MOST_WORK = ALL_IN_ONE // 2
"""Tokens of a batch, padding among them, times the square of the hidden size, up to which a GPU records the passes: the
others would gain little; and what waits for the host cannot be recorded."""
FORMAT_VERSION = 2
"""Raised when older code could no longer read a checkpoint rightly."""


class SentenceOrdererConfig(PreTrainedConfig):
    """What a checkpoint knows about itself.

    Args:
        encoder: the encoder's configuration as a dictionary with its ``model_type``.
        encoder_name: the pretrained encoder that training began with.
        method: a row of ``methods.py``: head, loss and decoder.
        backbone: what reads the documents, a row of ``methods.py`` too.
        pooling: ``marker``, ``mean`` or ``both``.
        dropout: of the head.
        max_length: tokens per input (a document; a sentence, if the backbone reads each by itself), markers included.
        tokenizer_size: tokens of the tokenizer, to notice a missing file.
        format_version: of the checkpoint.
    """

    model_type = MODEL_TYPE

    encoder: dict[str, Any] | None = None
    encoder_name: str | None = None
    method: str = DEFAULT_METHOD
    backbone: str = "hierarchical"
    pooling: str = "both"
    dropout: float = 0.0
    max_length: int = 512
    tokenizer_size: int | None = None
    format_version: int = FORMAT_VERSION
    label_convention: str = "position 0 is the first sentence"


class SentenceOrderer(OrderingMixin, PreTrainedModel):
    """Restores the order of shuffled sentences.

    ``SentenceOrderer.from_pretrained(folder).order([["Then it rained.", "The sky was blue."]])``

    ``tokenizer`` is saved and loaded with the model.
    """

    config_class = SentenceOrdererConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"

    def __init__(self, config: SentenceOrdererConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.format_version > FORMAT_VERSION:
            raise UserError(
                f"This checkpoint has format {config.format_version}, newer than this sentorder knows "
                f"({FORMAT_VERSION}); update sentorder."
            )
        self.method = get_method(config.method)
        if encoder is None:
            fields = dict(config.encoder or {})
            encoder = encoder_from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
        if config.pooling not in get_args(Pooling):
            raise UserError(f"There is no pooling {config.pooling!r}; choose one of: {', '.join(get_args(Pooling))}.")
        self.reading = get_backbone(config.backbone)
        self.backbone = self.reading.module(encoder, config.pooling, config.dropout)
        self.head = self.method.head(self.backbone.hidden_size, config.dropout)
        make_dropout_cheap(self)
        self.tokenizer: Any = None
        self.recordings = Recordings(MOST_WORK // self.backbone.hidden_size**2)
        self.origin = ""  # where it came from, one line for the log
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
        positions: torch.Tensor | None = None,
        sources: torch.Tensor | None = None,
        document_ids: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> OrderingOutput:
        """Encode a batch; shapes as in :class:`~sentorder.contracts.Batch`.

        ``positions`` only teach an autoregressive head; what stands behind them plays no part and is taken so that
        ``model(**batch)`` works.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_slots": token_slots,
            "slot_mask": slot_mask,
        }
        if positions is not None:
            inputs["positions"] = positions
        return OrderingOutput(**self.recordings(self._output, inputs, self))

    def _output(self, inputs: Mapping[str, torch.Tensor]) -> OrderingOutput:
        """What :meth:`forward` gives, computed step by step."""
        slot_mask = inputs["slot_mask"]
        slot_states = self.backbone(inputs["input_ids"], inputs["attention_mask"], inputs["token_slots"], slot_mask)
        # The head is small, and positions, scores and their ties want all the digits there are.
        if slot_states.dtype in (torch.float16, torch.bfloat16):
            slot_states = slot_states.float()
        with torch.autocast(slot_states.device.type, enabled=False):
            output: OrderingOutput = self.head(slot_states, slot_mask, inputs.get("positions"))
        return output

    def get_input_embeddings(self) -> torch.nn.Module:
        """The encoder's word embeddings: where others that work on any model of transformers look for them."""
        embeddings: torch.nn.Module = self.backbone.encoder.get_input_embeddings()
        return embeddings

    def tokenize(self, dataset: Dataset, *, num_workers: int | None = None) -> Dataset:
        """The token columns for a table with the columns ``sentences`` and ``origin``, as this model takes them.

        See :func:`~sentorder.data.tokenization.tokenize`.

        Raises:
            UserError: for a document with more sentences than fit.
        """
        per_sentence = self.reading.per_sentence
        return tokenize(
            dataset, self.tokenizer, self.config.max_length, per_sentence=per_sentence, num_workers=num_workers
        )

    def collator(self, *, seed: int, with_positions: bool = True, shape: Shape | None = None) -> Collator:
        """The collator that makes this model's inputs; see :class:`~sentorder.data.collation.Collator`."""
        return self.reading.inputs(
            self.tokenizer.cls_token_id,
            self.tokenizer.pad_token_id,
            seed=seed,
            with_positions=with_positions,
            shape=shape,
            most_tokens=self.config.max_length,
        )

    # --- making, saving and loading ---------------------------------------------------------------------------------

    @classmethod
    def from_encoder(
        cls,
        name_or_path: str | None = None,
        *,
        method: str = DEFAULT_METHOD,
        backbone: str | None = None,
        pooling: str = "both",
        dropout: float | None = None,
        max_length: int | None = None,
        tokenizer_name: str | None = None,
    ) -> SentenceOrderer:
        """A new model: a pretrained encoder with a fresh head.

        Args:
            name_or_path: a Hub name or a folder; None for the default encoder.
            method: a row of ``methods.py``.
            backbone: a row of ``methods.py`` too; None takes the method's.
            pooling: ``marker``, ``mean`` or ``both``.
            dropout: of encoder and head; None keeps the encoder's (and gives the head none).
            max_length: tokens per input; None takes the encoder's window.
            tokenizer_name: where the tokenizer comes from if not from the encoder.

        Raises:
            UserError: if encoder or tokenizer cannot be loaded, ``max_length`` is beyond the encoder's window, or the
                encoder does not go with the backbone.
        """
        backbone = backbone or get_method(method).backbone
        get_backbone(backbone)  # before the encoder is loaded
        if name_or_path is not None and is_orderer(name_or_path):
            raise UserError(f"{name_or_path}: is a trained model of sentorder, not an encoder.")
        source = resolve_encoder(name_or_path)
        tokenizer = load_tokenizer(tokenizer_name or source.path)
        encoder = load_encoder(source.path, dropout=dropout)
        add_missing_embeddings(encoder, tokenizer)
        window = window_length(encoder, tokenizer)
        if max_length is not None and max_length > window:
            raise UserError(f"--max_length {max_length}: the encoder {source.name} takes at most {window} tokens.")
        config = SentenceOrdererConfig(
            encoder=_portable(encoder.config),
            encoder_name=source.name,
            method=method,
            backbone=backbone,
            pooling=pooling,
            dropout=dropout or 0.0,
            max_length=max_length or window,
            tokenizer_size=len(tokenizer),
        )
        model = cls(config, encoder)
        model.backbone.check_encoder()
        model.tokenizer = tokenizer
        model.origin = f"{source.description}; method: {method}; backbone: {backbone}"
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, dropout: float | None = None, **kwargs: Any
    ) -> SentenceOrderer:
        """Load a model that was saved by :meth:`save_pretrained`, with its tokenizer, in float32 and evaluation mode.

        Args:
            pretrained_model_name_or_path: a ``model/`` folder or a Hub name.
            dropout: replaces every dropout, for further training; None keeps what was saved.
            kwargs: for ``PreTrainedModel.from_pretrained``.

        Raises:
            UserError: if there is no such model there.
        """
        source = str(pretrained_model_name_or_path)
        check_is_orderer(source)
        tokenizer = load_tokenizer(source)
        try:
            config = kwargs.pop("config", None) or SentenceOrdererConfig.from_pretrained(source)
            if config.tokenizer_size not in (None, len(tokenizer)):
                raise UserError(
                    f"{source}: its tokenizer has {len(tokenizer)} tokens, not the {config.tokenizer_size} of the one "
                    "that was saved; a tokenizer file is missing or was replaced."
                )
            if dropout is not None:
                config.dropout = dropout
                encoder = AutoConfig.for_model(**dict(config.encoder or {}))
                set_dropout(encoder, dropout)
                config.encoder = _portable(encoder)
            kwargs = {"dtype": torch.float32, "use_safetensors": True, **kwargs}
            loaded: Any = super().from_pretrained(source, config=config, output_loading_info=True, **kwargs)
            model, found = cast(tuple[SentenceOrderer, dict[str, Any]], loaded)
            wrong = [name for kind in ("missing_keys", "unexpected_keys") for name in sorted(found[kind])]
            if wrong or found["mismatched_keys"]:
                raise UserError(
                    f"{source}: the weights are not those of its config.json (method {config.method}, backbone "
                    f"{config.backbone}): {', '.join(wrong[:3]) or 'other shapes'} ..."
                )
        except UserError:
            raise
        except Exception as error:  # safetensors and transformers raise a dozen kinds for a broken file
            raise UserError(f"{source}: the model cannot be loaded ({error}).") from error
        model.backbone.check_encoder()
        model.tokenizer = tokenizer
        model.origin = f"model: {source}, {config.method}, with its trained head"
        return model

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """Save configuration, weights (safetensors) and tokenizer."""
        super().save_pretrained(save_directory, **kwargs)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)


def _portable(encoder_config: PreTrainedConfig) -> dict[str, Any]:
    """The encoder's configuration without the path of the machine that it was loaded on."""
    return {name: value for name, value in encoder_config.to_dict().items() if name != "_name_or_path"}


def load_for_training(
    name_or_path: str | None,
    *,
    method: str | None,
    backbone: str | None,
    pooling: str | None,
    dropout: float | None,
    max_length: int | None,
    tokenizer_name: str | None,
) -> SentenceOrderer:
    """The model that a run starts from.

    A folder of ours continues with its head, method, backbone and pooling; anything else is an encoder that gets a
    fresh head.

    Raises:
        UserError: also if ``method``, ``backbone``, ``pooling`` or ``tokenizer_name`` contradict the folder.
    """
    if method in UNTRAINED:
        raise UserError(f"--method {method}: learns nothing; python -m sentorder.evaluation --untrained scores it.")
    if name_or_path is not None and is_orderer(name_or_path):
        model = SentenceOrderer.from_pretrained(name_or_path, dropout=dropout)
        if model.config.method in UNTRAINED:
            raise UserError(f"{name_or_path}: its method {model.config.method} learns nothing.")
        for flag, asked, saved in (
            ("--method", method, model.config.method),
            ("--backbone", backbone, model.config.backbone),
            ("--pooling", pooling, model.config.pooling),
            ("--tokenizer_name", tokenizer_name, name_or_path),
        ):
            if asked is not None and asked != saved:
                raise UserError(f"{flag} {asked}: {name_or_path} was trained with {saved}; leave {flag} out.")
        if max_length is not None:
            window = window_length(model.backbone.encoder, model.tokenizer)
            if max_length > window:
                raise UserError(f"--max_length {max_length}: the encoder of {name_or_path} takes at most {window}.")
            model.config.max_length = max_length
        return model
    return SentenceOrderer.from_encoder(
        name_or_path,
        method=method or SentenceOrdererConfig.method,
        backbone=backbone,
        pooling=pooling or SentenceOrdererConfig.pooling,
        dropout=dropout,
        max_length=max_length,
        tokenizer_name=tokenizer_name,
    )


# So that AutoModel and AutoTokenizer know a checkpoint of ours once this module is imported.
AutoConfig.register(SentenceOrdererConfig.model_type, SentenceOrdererConfig)
AutoModel.register(SentenceOrdererConfig, SentenceOrderer)

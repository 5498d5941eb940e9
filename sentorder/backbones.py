"""From token ids to one state per sentence: what reads the sentences, and what each of them can see of the others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from .encoders import first_position, positions_known
from .errors import UserError, first_line
from .packing import pack

Pooling = Literal["marker", "mean", "both"]


def pooling_weights(
    token_slots: torch.Tensor, slots: int, pooling: Pooling, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """How much each token's state counts for each slot's state.

    Args:
        token_slots: (B, L) the slot of each token, -1 for padding; the first token of a slot is its marker.
        slots: N.
        pooling: ``marker`` reads the marker token alone, ``mean`` the mean over the slot's tokens, ``both`` their sum.
        dtype: of the token states.

    Returns:
        (B, N, L) of ``dtype``.
    """
    slot_numbers = torch.arange(slots, device=token_slots.device)
    members = (token_slots[:, None, :] == slot_numbers[None, :, None]).to(dtype)
    mean = members / members.sum(dim=-1, keepdim=True).clamp(min=1.0)
    if pooling == "mean":
        return mean
    marker = members * _starts(token_slots)[:, None, :]
    return marker if pooling == "marker" else marker + mean


def _starts(token_slots: torch.Tensor) -> torch.Tensor:
    """(B, L) True for the first token of each slot."""
    starts = torch.ones_like(token_slots, dtype=torch.bool)
    starts[:, 1:] = token_slots[:, 1:] != token_slots[:, :-1]
    return starts


def read_apart(
    encoder: PreTrainedModel, input_ids: torch.Tensor, token_slots: torch.Tensor, bonus: torch.Tensor | None = None
) -> torch.Tensor:
    """Several sentences in a row of the encoder, each with position ids that begin anew.

    Args:
        encoder: takes position ids, and sees order by nothing else.
        input_ids: (B, L).
        token_slots: (B, L) the number of each token's sentence in its row, -1 for padding.
        bonus: added to the attention scores between tokens of one sentence, (1,); None hides sentences from each other.

    Returns:
        (B, L, H) the state of each token.
    """
    places = torch.arange(token_slots.shape[1], device=token_slots.device).expand_as(token_slots)
    start_of_mine = torch.where(_starts(token_slots), places, 0).cummax(dim=1).values
    position_ids = (places - start_of_mine).masked_fill(token_slots < 0, 0) + first_position(encoder)
    together = token_slots[:, :, None] == token_slots[:, None, :]
    if bonus is None:
        scores = torch.zeros(together.shape, dtype=encoder.dtype, device=together.device)
        hidden = ~together  # padding sees itself: a softmax over nothing is not a number
    else:
        scores = torch.where(together, bonus, 0.0).to(encoder.dtype)
        hidden = (token_slots < 0)[:, None, :]
    mask = scores.masked_fill(hidden, torch.finfo(encoder.dtype).min)[:, None]
    states: torch.Tensor = encoder(
        input_ids=input_ids, attention_mask=mask, position_ids=position_ids
    ).last_hidden_state
    return states


TRIAL = 192
"""Tokens on which an encoder is tried: more than the local attention that some families have looks at."""


@contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    was_training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(was_training)


def _same_but_for_rounding(first: torch.Tensor, second: torch.Tensor) -> bool:
    allowed = max(2e-5, 8 * torch.finfo(first.dtype).eps)  # in float32, rounding is a tenth of that
    return bool((first - second).abs().max() <= allowed * first.abs().max())


class EncoderBackbone(nn.Module):
    """An encoder, and how the states of a sentence's tokens become one.

    Args:
        encoder: any Hugging Face encoder (a ``PreTrainedModel`` whose output has ``last_hidden_state``).
        pooling: how the states of a sentence's tokens become one.
        dropout: of what stands above the encoder; here nothing does.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden_size = int(encoder.config.hidden_size)
        self.pooling: Pooling = pooling
        self.pads_sentences = False
        """Whether each sentence of a batch is padded to the longest of all."""

    def check_encoder(self) -> None:
        """Try what the encoder can do, once its weights are there.

        Raises:
            UserError: if the backbone does not go with it.
        """


class JointBackbone(EncoderBackbone):
    """All sentences of a document through the encoder at once; then one state per slot."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
    ) -> torch.Tensor:
        """The state of each slot, (B, N, H); the shapes of the inputs are those of ``Batch``."""
        states = self.encode(input_ids, attention_mask, token_slots)
        return torch.bmm(pooling_weights(token_slots, slot_mask.shape[1], self.pooling, states.dtype), states)

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_slots: torch.Tensor) -> torch.Tensor:
        """(B, L, H) the state of each token."""
        states: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


class RestartedBackbone(JointBackbone):
    """Like the joint one, with position ids that begin anew in each sentence: the order of the slots cannot be seen.

    The states are then the same for any order of the sentences (to rounding), so averaging over shuffles changes
    nothing. What would be lost is which tokens make up a sentence: attention inside of a sentence gets a learned
    bonus, the same in all layers. (RankTxNet, Kumar et al., AAAI 2020, has no positions among sentences; Set-Encoder,
    Schlatt et al., 2024, restarts them among passages.)
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling, dropout: float) -> None:
        super().__init__(encoder, pooling, dropout)
        self.same_sentence = nn.Parameter(torch.ones(1))

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_slots: torch.Tensor) -> torch.Tensor:
        """(B, L, H) the state of each token."""
        return read_apart(self.encoder, input_ids, token_slots, self.same_sentence)

    @torch.no_grad()
    def check_encoder(self) -> None:
        """Try with two sentences in both orders whether the encoder does see their order.

        Raises:
            UserError: if it does (relative positions, windows of attention), or cannot be told positions at all.
        """
        name = self.encoder.config.model_type
        advice = "use --backbone joint or hierarchical."
        if "position_ids" not in inspect.signature(self.encoder.forward).parameters:
            raise UserError(f"--backbone restarted: a {name} encoder cannot be given positions; {advice}")
        length = max(2, min(TRIAL, positions_known(self.encoder) or TRIAL) // 2)
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.encoder.config.vocab_size, (2, length), generator=random)
        both = torch.stack([tokens.flatten(), tokens.flip(0).flatten()]).to(self.same_sentence.device)
        slots = torch.arange(2, device=both.device).repeat_interleave(length).expand_as(both)
        try:
            with _evaluating(self.encoder):
                forward, backward = self.encode(both, torch.ones_like(both), slots)
        except Exception as error:  # families raise what they like for a mask or positions that they do not know
            raise UserError(f"--backbone restarted: does not go with {name} ({first_line(error)}); {advice}") from error
        if not _same_but_for_rounding(forward, backward.view(2, length, -1).flip(0).flatten(0, 1)):
            raise UserError(
                f"--backbone restarted: a {name} encoder sees the order of sentences by more than its position ids; "
                f"{advice}"
            )


ROW = 128
"""Tokens in a row of sentences: wide enough that little stays empty, narrow enough that attention costs little."""


class SentenceBackbone(EncoderBackbone):
    """Each sentence through the encoder by itself: its state knows nothing of the others.

    The sentences of a batch are put side by side into rows, hidden from each other, where the encoder allows it;
    otherwise each is padded to the longest.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling, dropout: float) -> None:
        super().__init__(encoder, pooling, dropout)
        self.pads_sentences = True
        self.row = min(ROW, positions_known(encoder) or ROW)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
    ) -> torch.Tensor:
        """(B, N, H) for token tensors (B, N, L)."""
        ids, mask = input_ids[slot_mask], attention_mask[slot_mask]  # (sentences, L): no padded slot is computed
        pooled = self.read_padded(ids, mask) if self.pads_sentences else self.read_packed(ids, mask)
        return pooled.new_zeros(*slot_mask.shape, self.hidden_size).masked_scatter(slot_mask[..., None], pooled)

    def read_padded(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(sentences, H) for tokens (sentences, L), each sentence in a row of its own."""
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.bmm(pooling_weights(mask - 1, 1, self.pooling, states.dtype), states)[:, 0]

    def read_packed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The same, with several sentences in a row."""
        lengths: list[int] = mask.sum(dim=1).tolist()
        rows = pack(lengths, max(self.row, *lengths))
        width = max(sum(lengths[index] for index in row) for row in rows)
        tokens = np.zeros((len(rows), width), dtype=np.int64)  # where in ids; the first token fills up
        token_slots = np.full((len(rows), width), -1, dtype=np.int64)
        places = np.empty((len(lengths), 2), dtype=np.int64)  # row and number in the row of each sentence
        for number, row in enumerate(rows):
            end = 0
            for slot, index in enumerate(row):
                start, end = end, end + lengths[index]
                tokens[number, start:end] = np.arange(lengths[index]) + index * ids.shape[1]
                token_slots[number, start:end] = slot
                places[index] = number, slot
        in_row, slots, place = (torch.from_numpy(array).to(ids.device) for array in (tokens, token_slots, places))
        states = read_apart(self.encoder, ids.flatten()[in_row], slots)
        most = max(map(len, rows))
        return torch.bmm(pooling_weights(slots, most, self.pooling, states.dtype), states)[place[:, 0], place[:, 1]]

    @torch.no_grad()
    def check_encoder(self) -> None:
        """Try whether sentences that share a row come out as they do alone."""
        longest = min(TRIAL, positions_known(self.encoder) or TRIAL)
        lengths = torch.tensor([longest, 3, 5])
        mask = (torch.arange(longest) < lengths[:, None]).long().to(self.encoder.device)
        random = torch.Generator().manual_seed(0)
        ids = torch.randint(self.encoder.config.vocab_size, mask.shape, generator=random).to(mask.device)
        padding = getattr(self.encoder.config, "pad_token_id", None)  # by which some count positions
        ids = ids.masked_fill(ids == padding, int(padding == 0)) if padding is not None else ids
        try:
            with _evaluating(self.encoder):
                alone, packed = self.read_padded(ids, mask), self.read_packed(ids, mask)
        except Exception:  # families raise what they like for a mask or positions that they do not know
            return
        self.pads_sentences = not _same_but_for_rounding(alone, packed)


LAYERS = 2
"""Of the transformer over sentence states, as in RankTxNet and BERSON."""


class HierarchicalBackbone(SentenceBackbone):
    """Each sentence by itself, then a transformer over the sentence states, without positions.

    What the encoder costs grows linearly with the number of sentences, there is no limit to them, and the order of the
    slots cannot be seen. Kumar et al., RankTxNet (AAAI 2020).
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling, dropout: float) -> None:
        super().__init__(encoder, pooling, dropout)
        heads = getattr(encoder.config, "num_attention_heads", None) or 1
        layer = nn.TransformerEncoderLayer(
            self.hidden_size,
            heads,
            2 * self.hidden_size,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(self.hidden_size)  # which layers that begin with theirs leave to the end
        self.document = nn.TransformerEncoder(layer, LAYERS, norm=norm, enable_nested_tensor=False)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
    ) -> torch.Tensor:
        """(B, N, H) for token tensors (B, N, L)."""
        alone = super().forward(input_ids, attention_mask, token_slots, slot_mask)
        together: torch.Tensor = self.document(alone, src_key_padding_mask=~slot_mask)
        return together.masked_fill(~slot_mask[..., None], 0.0)

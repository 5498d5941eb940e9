"""From token ids to one state per sentence: what reads the sentences, and what each of them can see of the others."""

from __future__ import annotations

import inspect
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from .errors import UserError, first_line

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
        self.first_position = 0
        for module in encoder.modules():  # RoBERTa types count from behind the padding index
            table = getattr(module, "position_embeddings", None)
            if isinstance(table, nn.Embedding) and table.padding_idx is not None:
                self.first_position = table.padding_idx + 1

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_slots: torch.Tensor) -> torch.Tensor:
        """(B, L, H) the state of each token."""
        length = token_slots.shape[1]
        places = torch.arange(length, device=token_slots.device).expand_as(token_slots)
        start_of_mine = torch.where(_starts(token_slots), places, 0).cummax(dim=1).values
        position_ids = (places - start_of_mine).masked_fill(token_slots < 0, 0) + self.first_position
        together = token_slots[:, :, None] == token_slots[:, None, :]
        bonus = torch.where(together, self.same_sentence, 0.0)
        # (B, 1, L, L), added to the attention scores; padding is hidden from everybody.
        attention = bonus.masked_fill(token_slots[:, None, :] < 0, torch.finfo(bonus.dtype).min)[:, None]
        states: torch.Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention, position_ids=position_ids
        ).last_hidden_state
        return states

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
        limit = getattr(self.encoder.config, "max_position_embeddings", None) or 192
        length = max(2, min(96, limit // 2))  # longer together than the local attention that some families have
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.encoder.config.vocab_size, (2, length), generator=random)
        both = torch.stack([tokens.flatten(), tokens.flip(0).flatten()]).to(self.same_sentence.device)
        slots = torch.arange(2, device=both.device).repeat_interleave(length).expand_as(both)
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            forward, backward = self.encode(both, torch.ones_like(both), slots)
        except Exception as error:  # families raise what they like for a mask or positions that they do not know
            raise UserError(f"--backbone restarted: does not go with {name} ({first_line(error)}); {advice}") from error
        finally:
            self.encoder.train(was_training)
        difference = (forward - backward.view(2, length, -1).flip(0).flatten(0, 1)).abs().max()
        if difference > 2e-5 * forward.abs().max():  # rounding is a tenth of that
            raise UserError(
                f"--backbone restarted: a {name} encoder sees the order of sentences by more than its position ids; "
                f"{advice}"
            )


GROUPS = 4
"""Into how many groups of like length the sentences of a batch are put at the most."""
ROWS = 8
"""How many sentences make a group worth a pass of its own."""


class SentenceBackbone(EncoderBackbone):
    """Each sentence through the encoder by itself: its state knows nothing of the others."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
    ) -> torch.Tensor:
        """(B, N, H) for token tensors (B, N, L)."""
        ids, mask = input_ids[slot_mask], attention_mask[slot_mask]  # (sentences, L): no padded slot is computed
        lengths = mask.sum(dim=1)
        # Sentences of like length together: padded to the longest of all, a good part of the work would be padding. Not
        # while learning, where each pass costs a gradient of the whole vocabulary, which is more than that.
        by_length = torch.argsort(lengths, stable=True)
        groups = 1 if torch.is_grad_enabled() else min(GROUPS, max(1, len(lengths) // ROWS))
        parts = []
        for rows in by_length.chunk(groups):
            width = int(lengths[rows].max())
            shown = mask[rows, :width]
            states = self.encoder(input_ids=ids[rows, :width], attention_mask=shown).last_hidden_state
            parts.append(torch.bmm(pooling_weights(shown - 1, 1, self.pooling, states.dtype), states)[:, 0])
        pooled = torch.cat(parts)[torch.argsort(by_length)]
        return pooled.new_zeros(*slot_mask.shape, self.hidden_size).masked_scatter(slot_mask[..., None], pooled)


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

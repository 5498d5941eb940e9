"""From token ids to one state per sentence: what reads the sentences, and what each of them can see of the others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from .attention import Group, group_by_length, takes_groups, use_own_attention
from .encoders import first_position, positions_known
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


def read_apart(
    encoder: PreTrainedModel, input_ids: torch.Tensor, token_slots: torch.Tensor, bonus: torch.Tensor
) -> torch.Tensor:
    """Several sentences in a row of the encoder, each with position ids that begin anew.

    Args:
        encoder: takes position ids, and sees order by nothing else.
        input_ids: (B, L).
        token_slots: (B, L) the number of each token's sentence in its row, -1 for padding.
        bonus: added to the attention scores between tokens of one sentence, (1,).

    Returns:
        (B, L, H) the state of each token.
    """
    places = torch.arange(token_slots.shape[1], device=token_slots.device).expand_as(token_slots)
    start_of_mine = torch.where(_starts(token_slots), places, 0).cummax(dim=1).values
    position_ids = (places - start_of_mine).masked_fill(token_slots < 0, 0) + first_position(encoder)
    together = token_slots[:, :, None] == token_slots[:, None, :]
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
        use_own_attention(encoder)
        self.encoder = encoder
        self.hidden_size = int(encoder.config.hidden_size)
        self.pooling: Pooling = pooling

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
        """(B, N, H) for token tensors (B, L)."""
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


class Costs(NamedTuple):
    """What a group of sentences costs, in tokens of padding that cost as much."""

    in_a_row: float
    """If groups share an encoder's row."""
    alone: float
    """If each has a pass of its own, where the encoder can do nothing else."""


CPU_COSTS = Costs(4.0, 64.0)
GPU_COSTS = Costs(8192.0, 16384.0)
"""There many tokens take hardly longer than few, but every operation has its price."""
ALL_IN_ONE = 2**33
"""Tokens of a batch, padding among them, times the square of the hidden size, up to which a GPU computes them all: to
find groups, the host would have to wait until it knows how long the sentences are."""


class SentenceBackbone(EncoderBackbone):
    """Each sentence through the encoder by itself: its state knows nothing of the others.

    Sentences of like length are put into groups, so that little is padding. All groups go through the encoder in one
    row where it attends as :mod:`~sentorder.attention` tells it to, else each in a pass of its own.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling, dropout: float) -> None:
        super().__init__(encoder, pooling, dropout)
        self.shares_rows = False
        """Whether sentences that share a row come out as they do alone; found out by :meth:`check_encoder`."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_slots: torch.Tensor,
        slot_mask: torch.Tensor,
    ) -> torch.Tensor:
        """(B, N, H) for token tensors (B, N, L)."""
        if input_ids.device.type != "cpu" and input_ids.numel() * self.hidden_size**2 <= ALL_IN_ONE:
            return self._all_in_one(input_ids, attention_mask)
        ids, mask = input_ids[slot_mask], attention_mask[slot_mask]  # (sentences, L): no padded slot is computed
        pooled = self.read(ids, mask, together=self.shares_rows and takes_groups(self.encoder))
        return pooled.new_zeros(*slot_mask.shape, self.hidden_size).masked_scatter(slot_mask[..., None], pooled)

    def _all_in_one(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, N, H) for (B, N, L), padded slots computed as well: without asking the device what there is."""
        mask = attention_mask.flatten(0, 1)
        visible = mask.clone()
        visible[:, 0] = 1  # also where there is nothing but padding: attention must have something to look at
        states = self.encoder(input_ids=input_ids.flatten(0, 1), attention_mask=visible).last_hidden_state
        pooled = torch.bmm(pooling_weights(mask - 1, 1, self.pooling, states.dtype), states)
        return pooled.view(*input_ids.shape[:2], self.hidden_size)

    def read(self, ids: torch.Tensor, mask: torch.Tensor, *, together: bool) -> torch.Tensor:
        """(sentences, H) for tokens (sentences, L), all groups in one row of the encoder or each in a pass."""
        lengths: list[int] = mask.sum(dim=1).tolist()
        costs = CPU_COSTS if ids.device.type == "cpu" else GPU_COSTS
        groups = group_by_length(lengths, costs.in_a_row if together else costs.alone)
        order = torch.tensor([index for group in groups for index in group], device=ids.device)
        ids, mask = ids[order], mask[order]
        parts, start = [], 0
        for group in groups:
            rows, width = slice(start, start + len(group)), lengths[group[-1]]
            parts.append((ids[rows, :width], mask[rows, :width]))
            start += len(group)
        if together:
            states = self._in_one_row(parts, whole=[lengths[group[0]] == lengths[group[-1]] for group in groups])
        else:
            states = [self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state for ids, mask in parts]
        pooled = [
            torch.bmm(pooling_weights(mask - 1, 1, self.pooling, found.dtype), found)[:, 0]
            for (_, mask), found in zip(parts, states, strict=True)
        ]
        return torch.cat(pooled)[torch.argsort(order)]

    def _in_one_row(
        self, parts: Sequence[tuple[torch.Tensor, torch.Tensor]], *, whole: Sequence[bool]
    ) -> list[torch.Tensor]:
        """The states (sentences, L, H) of each group, given its token ids and mask (sentences, L)."""
        groups = [
            Group(ids.shape[0], ids.shape[1], None if is_whole else mask.bool()[:, None, None])
            for (ids, mask), is_whole in zip(parts, whole, strict=True)
        ]
        first = first_position(self.encoder)
        places = [torch.arange(first, first + ids.shape[1], device=ids.device).expand_as(ids) for ids, _ in parts]
        states = self.encoder(
            input_ids=torch.cat([ids.flatten() for ids, _ in parts])[None],
            position_ids=torch.cat([place.flatten() for place in places])[None],
            groups=groups,
        ).last_hidden_state[0]
        sizes = [ids.numel() for ids, _ in parts]
        return [part.unflatten(0, ids.shape) for part, (ids, _) in zip(states.split(sizes), parts, strict=True)]

    @torch.no_grad()
    def check_encoder(self) -> None:
        """Try whether sentences that share a row come out as they do alone."""
        longest = min(TRIAL, positions_known(self.encoder) or TRIAL)
        lengths = torch.tensor([longest, longest - 1, 3, 5])  # the first two in a group, so that one of them is padded
        mask = (torch.arange(longest) < lengths[:, None]).long().to(self.encoder.device)
        random = torch.Generator().manual_seed(0)
        ids = torch.randint(self.encoder.config.vocab_size, mask.shape, generator=random).to(mask.device)
        padding = getattr(self.encoder.config, "pad_token_id", None)  # by which some count positions
        ids = ids.masked_fill(ids == padding, int(padding == 0)) if padding is not None else ids
        try:
            with _evaluating(self.encoder):
                alone, together = (self.read(ids, mask, together=way) for way in (False, True))
        except Exception:  # families raise what they like for arguments that they do not know
            return
        self.shares_rows = _same_but_for_rounding(alone, together)


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

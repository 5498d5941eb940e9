"""The methods, one row each. Adding one is a row here and at most one function in each module that it names.

Likewise the backbones, any of which goes with any method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import nn

from .backbones import HierarchicalBackbone, JointBackbone, RestartedBackbone, SentenceBackbone
from .beam import decode_choices, decode_together
from .contracts import Decoder, Loss, StepDecoder
from .data.collation import Collator, JointCollator, SentenceCollator
from .decoding import (
    decode_as_shuffled,
    decode_at_random,
    decode_borda,
    decode_copeland,
    decode_pairs,
    decode_pairs_and_neighbours,
    decode_positions,
    decode_scores,
    decode_shares,
    decode_similarity,
    decode_soft_permutation,
    decode_strengths,
    decode_topological,
)
from .errors import UserError
from .heads import PairHead, PointerHead, PositionHead, RelationalPointerHead, ScoreHead, StateHead
from .losses import (
    adjacency_cross_entropy,
    exclusive_cross_entropy,
    next_slot_cross_entropy,
    next_slot_log_likelihood,
    pairwise_logistic,
    position_cross_entropy,
    sinkhorn_cross_entropy,
    sum_of,
)
from .score_losses import (
    absolute_error,
    absolute_error_of_share,
    huber,
    huber_of_share,
    lambda_tau,
    listmle,
    listmle_both_ways,
    listmle_by_position,
    listnet,
    ranknet,
    squared_error,
    squared_error_of_share,
)

Row = TypeVar("Row")


@dataclass(frozen=True)
class Backbone:
    """A way to read documents."""

    description: str
    inputs: type[Collator]
    """How documents become model inputs."""
    module: Callable[..., Any]
    """(encoder, pooling, dropout) -> what turns inputs into one state per sentence."""
    blind: bool = False
    """Whether it cannot see the order of its input."""

    @property
    def per_sentence(self) -> bool:
        """Whether the encoder's window holds a sentence and not a document."""
        return self.inputs is SentenceCollator


BACKBONES: dict[str, Backbone] = {
    "joint": Backbone("all sentences of a document in one input", JointCollator, JointBackbone),
    "restarted": Backbone(
        "the same, with positions that begin anew in each sentence: blind to the order of the input",
        JointCollator,
        RestartedBackbone,
        blind=True,
    ),
    "hierarchical": Backbone(
        "each sentence by itself, then a transformer over the sentences",
        SentenceCollator,
        HierarchicalBackbone,
        blind=True,
    ),
    "sentence": Backbone("each sentence by itself, and nothing more", SentenceCollator, SentenceBackbone, blind=True),
}


@dataclass(frozen=True)
class Method:
    """A way to order sentences."""

    description: str
    head: Callable[[int, float], nn.Module]
    """(hidden size, dropout) -> what turns states into scores or logits."""
    loss: Loss | None
    """None for one that learns nothing."""
    decoder: Decoder | StepDecoder
    reference: str
    log_likelihood: Loss | None = None
    """(output, batch) -> (B,) log probability of the order that ``positions`` give, where the method has one."""
    backbone: str = "hierarchical"
    """What reads the documents unless another backbone is asked for."""

    @property
    def training_loss(self) -> Loss:
        """The loss of a method that learns something."""
        if self.loss is None:
            raise ValueError("This method has no loss: it learns nothing.")
        return self.loss


_TUTORIAL = "Keller, 'trf_training_tut' (2021); the regression baseline of Kumar et al., RankTxNet (AAAI 2020)"
_POINTER = "Vinyals et al., Pointer Networks (NeurIPS 2015); Logeswaran et al., Sentence Ordering (AAAI 2018)"
_BERSON = "Cui et al., BERSON (EMNLP 2020), in one pass of the encoder instead of one per pair"
_NAON = "Bin et al., NAON (EMNLP Findings 2023)"

DEFAULT_METHOD = "joint"
"""Of those that were trained with three seeds the best on validation; README has the figures."""

METHODS: dict[str, Method] = {
    # A score per sentence, sorted.
    "regression": Method(
        "score per sentence, squared error to its position, sorted", ScoreHead, squared_error, decode_scores, _TUTORIAL
    ),
    "regression-share": Method(
        "the same with positions as shares of the document, 0 to 1",
        ScoreHead,
        squared_error_of_share,
        decode_shares,
        _TUTORIAL,
    ),
    "l1": Method(
        "score per sentence, distance to its position, sorted",
        ScoreHead,
        absolute_error,
        decode_scores,
        "used in the AI4Code competition (2022), where it beat squared error",
    ),
    "l1-share": Method(
        "the same with shares of the document", ScoreHead, absolute_error_of_share, decode_shares, "as l1"
    ),
    "huber": Method(
        "score per sentence, squared error up to one position, linear beyond",
        ScoreHead,
        huber,
        decode_scores,
        "Huber, Robust Estimation of a Location Parameter (1964)",
    ),
    "huber-share": Method("the same with shares of the document", ScoreHead, huber_of_share, decode_shares, "as huber"),
    "ranknet": Method(
        "score per sentence, logistic loss of the differences",
        ScoreHead,
        ranknet,
        decode_strengths,
        "Burges et al., RankNet (ICML 2005)",
    ),
    "lambda-tau": Method(
        "ranknet, each pair weighted by what swapping it would do to tau",
        ScoreHead,
        lambda_tau,
        decode_strengths,
        "Burges et al., LambdaRank (NeurIPS 2006), with tau in place of NDCG",
    ),
    "listnet": Method(
        "score per sentence, cross-entropy of which one is first",
        ScoreHead,
        listnet,
        decode_strengths,
        "Cao et al., ListNet (ICML 2007)",
    ),
    "listmle": Method(
        "score per sentence, likelihood of the order chosen from the first on",
        ScoreHead,
        listmle,
        decode_strengths,
        "Xia et al., ListMLE (ICML 2008); Kumar et al., RankTxNet (AAAI 2020); Zhu et al., BERT4SO (2021)",
    ),
    "listmle-both-ways": Method(
        "the same, from the first on and from the last back",
        ScoreHead,
        listmle_both_ways,
        decode_strengths,
        "as listmle, made symmetric",
    ),
    "listmle-by-position": Method(
        "listmle with the first choices weighted up",
        ScoreHead,
        listmle_by_position,
        decode_strengths,
        "Lan et al., Position-Aware ListMLE (UAI 2014)",
    ),
    # A logit per pair.
    "pairwise": Method(
        "antisymmetric logit per pair from one pass, logistic loss, exact decoding",
        PairHead,
        pairwise_logistic,
        decode_pairs,
        "Burges et al., RankNet (ICML 2005); pairs as in Prabhumoye et al., B-TSort (ACL 2020), in one pass",
    ),
    "pairwise-neighbours": Method(
        "pairwise, with 'directly follows' as a second relation",
        partial(PairHead, adjacency=True),
        sum_of(pairwise_logistic, adjacency_cross_entropy),
        decode_pairs_and_neighbours,
        "relations at several distances: Zhu et al., Neural Sentence Ordering Based on Constraint Graphs (AAAI 2021)",
    ),
    # A logit per sentence and position.
    "position": Method(
        "cross-entropy over the positions, best assignment",
        PositionHead,
        position_cross_entropy,
        decode_positions,
        "position queries as in " + _NAON,
    ),
    "position-exclusive": Method(
        "the same, and over the sentences of each position",
        PositionHead,
        exclusive_cross_entropy,
        decode_positions,
        _NAON,
    ),
    "position-sinkhorn": Method(
        "cross-entropy of the soft permutation",
        PositionHead,
        sinkhorn_cross_entropy,
        decode_soft_permutation,
        "Mena et al., Gumbel-Sinkhorn Networks (ICLR 2018), without the noise",
    ),
    # Choice after choice.
    "pointer": Method(
        "sentence after sentence from those that are left, cross-entropy of the choices, beam search",
        PointerHead,
        next_slot_cross_entropy,
        decode_choices,
        _POINTER,
        next_slot_log_likelihood,
    ),
    "pointer-pairs": Method(
        "pointer that knows the pair relations of each candidate",
        RelationalPointerHead,
        sum_of(next_slot_cross_entropy, pairwise_logistic, adjacency_cross_entropy),
        decode_choices,
        _BERSON,
        next_slot_log_likelihood,
    ),
    "joint": Method(
        "choices, pairs, neighbours and positions from one pass, decoded together",
        partial(RelationalPointerHead, positions=True),
        sum_of(next_slot_cross_entropy, pairwise_logistic, adjacency_cross_entropy, position_cross_entropy),
        decode_together,
        f"{_POINTER}; {_BERSON}; {_NAON}",
        next_slot_log_likelihood,
    ),
    # Nothing to learn: what a method has to beat.
    "as-shuffled": Method("the sentences as they come in", StateHead, None, decode_as_shuffled, "a floor"),
    "random": Method("a random order", StateHead, None, decode_at_random, "a floor"),
    "similarity": Method(
        "neighbours as alike as possible, by the cosines of the untrained encoder",
        StateHead,
        None,
        decode_similarity,
        "Golestani et al., Using BERT Encoding and Sentence-Level Language Model for Sentence Ordering (2021)",
        backbone="sentence",
    ),
}


@dataclass(frozen=True)
class DecoderChoice:
    """A decoder that can be asked for by name."""

    decoder: Decoder | StepDecoder
    needs: tuple[str, ...] = ()
    """The fields of the output that it reads."""
    steps: bool = False
    """Whether it goes through an autoregressive head."""
    one_order: bool = False
    """Whether it knows the best order alone."""


DECODERS: dict[str, DecoderChoice] = {
    "pairs": DecoderChoice(decode_pairs, ("pair_logits",)),
    "pairs-and-neighbours": DecoderChoice(decode_pairs_and_neighbours, ("pair_logits", "adjacency_logits")),
    "borda": DecoderChoice(decode_borda, ("pair_logits",), one_order=True),
    "copeland": DecoderChoice(decode_copeland, ("pair_logits",), one_order=True),
    "topological": DecoderChoice(decode_topological, ("pair_logits",), one_order=True),
    "positions": DecoderChoice(decode_positions, ("position_logits",)),
    "choices": DecoderChoice(decode_choices, steps=True),
    "together": DecoderChoice(decode_together, ("pair_logits", "adjacency_logits"), steps=True),
}
"""What a trained model can be decoded with instead of its method's own: each reads what some methods give."""

TRAINED = tuple(name for name, method in METHODS.items() if method.loss is not None)
UNTRAINED = tuple(name for name, method in METHODS.items() if method.loss is None)


def get_method(name: str) -> Method:
    """The row of that name.

    Raises:
        UserError: if there is none, with the names that there are.
    """
    return _row(METHODS, "method", name)


def get_backbone(name: str) -> Backbone:
    """The row of that name.

    Raises:
        UserError: if there is none, with the names that there are.
    """
    return _row(BACKBONES, "backbone", name)


def _row(table: Mapping[str, Row], kind: str, name: str) -> Row:
    if name not in table:
        raise UserError(f"There is no {kind} {name!r}; choose one of: {', '.join(table)}.")
    return table[name]

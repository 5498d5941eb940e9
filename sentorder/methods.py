"""The methods, one row each. Adding one is a row here and at most one function in each module that it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .backbones import JointBackbone
from .contracts import Decoder, Loss, StepDecoder
from .data.collation import JointCollator
from .decoding import decode_choices, decode_pairs, decode_scores
from .errors import UserError
from .heads import PairHead, PointerHead, ScoreHead
from .losses import next_slot_cross_entropy, next_slot_log_likelihood, pairwise_logistic, squared_error


@dataclass(frozen=True)
class Method:
    """A way to order sentences."""

    description: str
    inputs: type[JointCollator]
    """How documents become model inputs."""
    backbone: type[JointBackbone]
    """What turns inputs into one state per sentence."""
    head: Callable[[int, float], nn.Module]
    """(hidden size, dropout) -> what turns states into scores or logits."""
    loss: Loss
    decoder: Decoder | StepDecoder
    reference: str
    log_likelihood: Loss | None = None
    """(output, batch) -> (B,) log probability of the order that ``positions`` give, where the method has one."""


METHODS: dict[str, Method] = {
    "regression": Method(
        "score per sentence, squared error to its position, sorted",
        JointCollator,
        JointBackbone,
        ScoreHead,
        squared_error,
        decode_scores,
        "Keller, 'trf_training_tut' (2021); the regression baseline of Kumar et al., RankTxNet (AAAI 2020)",
    ),
    "pairwise": Method(
        "antisymmetric logit per pair from one pass, logistic loss, exact decoding",
        JointCollator,
        JointBackbone,
        PairHead,
        pairwise_logistic,
        decode_pairs,
        "Burges et al., RankNet (ICML 2005); pairs as in Prabhumoye et al., B-TSort (ACL 2020), in one pass",
    ),
    "pointer": Method(
        "sentence after sentence from those that are left, cross-entropy of the choices, beam search",
        JointCollator,
        JointBackbone,
        PointerHead,
        next_slot_cross_entropy,
        decode_choices,
        "Vinyals et al., Pointer Networks (NeurIPS 2015); Logeswaran et al., Sentence Ordering (AAAI 2018)",
        next_slot_log_likelihood,
    ),
}


def get_method(name: str) -> Method:
    """The row of that name.

    Raises:
        UserError: if there is none, with the names that there are.
    """
    if name not in METHODS:
        raise UserError(f"There is no method {name!r}; choose one of: {', '.join(METHODS)}.")
    return METHODS[name]

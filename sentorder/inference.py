"""Using a model: the orders of documents, and how coherent a given order is. The methods of every SentenceOrderer."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from .contracts import AutoregressiveHead, Batch, Decoded, Decoder, OrderingOutput, StepDecoder
from .data.collation import EncodedDocument
from .data.sampling import GlobalPlan, PlannedDocument
from .data.tokenization import describe_cuts, encode_documents
from .errors import UserError
from .methods import DECODERS, Backbone, Method
from .metrics import in_source_order, kendall_tau, positions_of
from .passes import HeadOverPasses, run_passes
from .pieces import Pieces

logger = logging.getLogger("sentorder")

SHUFFLE_SEED = 0
"""Of the shuffle that documents get before they are ordered or scored: one for all runs, so that scores compare."""


MOST_ORDERS = 128
"""So many orders of a document are decoded at the most to find k that differ in more than copies, unless k is more."""


class Ordered(NamedTuple):
    """A predicted order of one document."""

    order: list[int]
    """Indices into the sentences as they were given, in predicted order."""
    sentences: list[str]
    """The sentences in that order."""
    confidence: float
    """0 (a guess) to 1 (certain); what it measures depends on the method, see ``decoding.py`` (and ``pieces.py``)."""
    score: float
    """What the decoder maximised, see there: compares orders of one document."""


class Coherence(NamedTuple):
    """How well the sentences of a document stand as they stand."""

    tau: float
    """Kendall's tau of the given order against the predicted one, -1 to 1; NaN for one sentence."""
    log_likelihood: float | None
    """Log probability of the given order under the model; None for a method that has none, and for a document that came
    in pieces. Copies are told apart in it, so a document with copies of a sentence seems less likely than its text is.
    """
    order: list[int]
    """The predicted order: indices into the given sentences."""
    confidence: float
    """Of the predicted order, 0 to 1."""


class Decoding(NamedTuple):
    """How orders are found; see :meth:`OrderingMixin.set_decoding`."""

    decoder: str | None = None
    num_permutations: int = 1
    num_refeeds: int = 0
    piece_length: int | None = None


class OrderingMixin:
    """What a model with tokenizer, collator and decoder can be asked.

    What a document comes out as does not depend on the order in which its sentences are given: they are shuffled by
    their content first. (Sentences that are the same to the tokenizer are told apart by where they stood.)
    """

    # What SentenceOrderer has.
    config: Any
    method: Method
    head: Any
    backbone: Any
    reading: Backbone

    decoding = Decoding()

    def order(self, documents: Sequence[Sequence[str]], *, batch_size: int = 32) -> list[Ordered]:
        """Order the sentences of each document.

        Args:
            documents: the sentences of each document, in any order.
            batch_size: documents per pass of the encoder.

        Raises:
            UserError: for a document that is not a list of sentences with something in each, or has too many.
        """
        return [best for best, *_ in self.best_orders(documents, 1, batch_size=batch_size)]

    def best_orders(self, documents: Sequence[Sequence[str]], k: int, *, batch_size: int = 32) -> list[list[Ordered]]:
        """The k best orders of each document, best first; a document of n sentences has no more than n!.

        They are the best of all where the decoder is exact, else of those that it looks at (see ``decoding.py``).

        Args:
            documents: the sentences of each document, in any order.
            k: at least 1.
            batch_size: documents per pass of the encoder.

        Raises:
            UserError: as :meth:`order`.
        """
        found = dict(self.iter_orders(documents, k, batch_size=batch_size))
        return [found[index] for index in range(len(documents))]

    def score(self, documents: Sequence[Sequence[str]], *, batch_size: int = 32) -> list[Coherence]:
        """Rate the order in which the sentences of each document stand.

        Args:
            documents: the sentences of each document, in the order to be rated.
            batch_size: documents per pass of the encoder.

        Raises:
            UserError: as :meth:`order`.
        """
        found = dict(self.iter_scores(documents, batch_size=batch_size))
        return [found[index] for index in range(len(documents))]

    def iter_orders(
        self,
        documents: Sequence[Sequence[str]],
        k: int = 1,
        *,
        batch_size: int = 32,
        names: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, list[Ordered]]]:
        """Like :meth:`best_orders`, but yields ``(index, orders)`` as the batches are done.

        The longest documents come first, and those that are put into order in pieces last.

        ``names`` are what an error calls the documents.
        """
        for index, ranking, _ in self._ranked(documents, k, batch_size, names, rate=False):
            sentences = documents[index]
            yield (
                index,
                [
                    Ordered(found.order, [sentences[i] for i in found.order], found.confidence, found.score)
                    for found in ranking
                ],
            )

    def iter_scores(
        self, documents: Sequence[Sequence[str]], *, batch_size: int = 32, names: Sequence[str] | None = None
    ) -> Iterator[tuple[int, Coherence]]:
        """Like :meth:`score`, but yields ``(index, coherence)`` as the batches are done, as :meth:`iter_orders`."""
        for index, (best, *_), log_likelihood in self._ranked(documents, 1, batch_size, names, rate=True):
            tau = kendall_tau(positions_of(best.order), range(len(best.order)))
            yield index, Coherence(tau, log_likelihood, best.order, best.confidence)

    def precedence(self, sentences: Sequence[str]) -> np.ndarray:
        """What the model says about each two sentences of a document.

        Args:
            sentences: in any order.

        Returns:
            (n, n) the probability, 0 to 1, that the sentence of the row stands before that of the column; the diagonal
            is 0.5.

        Raises:
            UserError: if the model's method gives no pair logits, and as :meth:`order`.
        """
        _check_documents([sentences], ["the document"])
        ((_, batch, output),) = self._outputs([sentences], 1, ["the document"])
        if output.pair_logits is None:
            raise UserError(
                f"The method {self.config.method} says nothing about pairs of sentences; pairwise, "
                "pairwise-neighbours, pointer-pairs and joint do."
            )
        n = len(sentences)
        sources = batch["sources"][0, :n].cpu().numpy()
        found = np.empty((n, n))
        found[np.ix_(sources, sources)] = torch.sigmoid(output.pair_logits[0, :n, :n].double()).cpu().numpy()
        return found

    def forward_passes(self, batch: Batch) -> OrderingOutput:
        """The output averaged over as many passes as :meth:`set_decoding` asks for, in the slots of the batch."""
        return run_passes(
            cast(Any, self),
            batch,
            permutations=self.decoding.num_permutations,
            refeeds=self.decoding.num_refeeds,
            best_orders=lambda output, mask: [best.order for best, *_ in self.decode(output, mask)],
        )

    def decode(self, output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
        """The k best orders of each document, by the decoder of the model's method or another one that was set.

        Raises:
            UserError: if the decoder that was set cannot read what this model gives, or knows one order only.
        """
        autoregressive = isinstance(self.head, AutoregressiveHead)
        decoder, steps = self.method.decoder, autoregressive
        asked = self.decoding.decoder
        if asked is not None:
            choice = DECODERS[asked]
            decoder, steps = choice.decoder, choice.steps
            missing = [name for name in choice.needs if output.get(name) is None]
            if steps and not autoregressive:
                missing.append("choices")
            if missing:
                raise UserError(
                    f"--decoder {asked}: reads {missing[0]}, which the method {self.config.method} does not give."
                )
            if choice.one_order and k > 1:
                raise UserError(f"--decoder {asked}: gives one order of a document, not {k}.")
        if not steps:
            return cast(Decoder, decoder)(output, slot_mask, k=k)
        assert output.slot_states is not None
        passes = output.slot_states.shape[-1] // self.backbone.hidden_size
        head = cast(AutoregressiveHead, self.head)
        if passes > 1:
            head = HeadOverPasses(head, passes)
        return cast(StepDecoder, decoder)(output, slot_mask, k=k, head=head)

    def set_decoding(
        self,
        *,
        decoder: str | None = None,
        num_permutations: int = 1,
        num_refeeds: int = 0,
        piece_length: int | None = None,
    ) -> None:
        """Change how orders are found from here on; without arguments back to the usual way.

        Args:
            decoder: a row of ``DECODERS`` in ``methods.py``; None for the method's own.
            num_permutations: over how many orders of the input the model's output is averaged, a pass each.
            num_refeeds: how often the best order so far is given as the input once more, a pass each.
            piece_length: the most sentences that are put into order at once, best an even number; longer documents come
                piece by piece, and the pieces' votes are merged, see :mod:`sentorder.pieces`. None for all at once.

        Raises:
            UserError: for an unknown decoder, a wrong number, or more passes with a backbone that cannot see the order
                of its input: they would change nothing.
        """
        if decoder is not None and decoder not in DECODERS:
            raise UserError(f"There is no decoder {decoder!r}; choose one of: {', '.join(DECODERS)}.")
        for name, value, least in (("num_permutations", num_permutations, 1), ("num_refeeds", num_refeeds, 0)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"--{name} {value}: must be a whole number, at least {least}.")
            if value > least and self.reading.blind:
                raise UserError(
                    f"--{name} {value}: the backbone {self.config.backbone} does not see the order of its input, so "
                    "more passes change nothing; leave it out."
                )
        if piece_length is not None and (not isinstance(piece_length, int) or piece_length < 2):
            raise UserError(f"--piece_length {piece_length}: must be a whole number, at least 2.")
        most = self.config.max_length // 2
        if piece_length is not None and piece_length > most and not self.reading.per_sentence:
            raise UserError(f"--piece_length {piece_length}: the model reads {most} sentences at once at most.")
        self.decoding = Decoding(decoder, num_permutations, num_refeeds, piece_length)

    def _ranked(
        self, documents: Sequence[Sequence[str]], k: int, batch_size: int, names: Sequence[str] | None, *, rate: bool
    ) -> Iterator[tuple[int, list[Decoded], float | None]]:
        """Each document's number, its k best orders as indices into its sentences, and, if it is to be rated, the log
        likelihood of the given order (of one that comes in pieces there is none)."""
        for name, value in (("k", k), ("batch_size", batch_size)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} {value}: must be a whole number, at least 1.")
        _check_documents(documents, names)
        if not documents:
            return
        names = names or [f"documents[{number}]" for number in range(len(documents))]
        length = self.decoding.piece_length or max(map(len, documents))
        at_once = [index for index, document in enumerate(documents) if len(document) <= length]
        in_pieces = [index for index, document in enumerate(documents) if len(document) > length]
        given = [documents[index] for index in at_once]
        for number, ranking, log_likelihood in self._whole(
            given, k, batch_size, [names[index] for index in at_once], rate=rate
        ):
            yield at_once[number], _distinct(ranking, given[number], k), log_likelihood
        for index in in_pieces:  # one by one: a long one has many pieces
            pieces = Pieces([documents[index]], length)
            found = dict[int, Decoded]()
            texts, own_names = pieces.sentences(), pieces.names([names[index]])
            for piece, (best, *_), _ in self._whole(texts, 1, batch_size, own_names, rate=False, what="pieces"):
                found[piece] = best
            wanted = _with_spare(k, [documents[index]])
            ranking = pieces.merged(0, [found[row] for row in pieces.rows[0]], k=wanted)
            yield index, _distinct(ranking, documents[index], k), None

    @torch.no_grad()
    def _whole(
        self,
        documents: Sequence[Sequence[str]],
        k: int,
        batch_size: int,
        names: Sequence[str],
        *,
        rate: bool,
        what: str = "documents",
    ) -> Iterator[tuple[int, list[Decoded], float | None]]:
        """Like :meth:`_ranked` without pieces, but orders that differ in copies alone are several."""
        model: Any = self
        likelihood = model.method.log_likelihood if rate else None
        # Positions are for the likelihood alone; the slots do not depend on them, and no decoder sees them.
        found = self._outputs(documents, batch_size, names, with_positions=likelihood is not None, what=what)
        for planned, batch, output in found:
            wanted = _with_spare(k, [documents[document.row] for document in planned])
            rankings = model.decode(output, batch["slot_mask"], k=wanted)
            likelihoods = [None] * len(planned) if likelihood is None else likelihood(output, batch).tolist()
            answers = zip(planned, batch["sources"].tolist(), rankings, likelihoods, strict=True)
            for document, sources, ranking, log_likelihood in answers:
                orders = [best._replace(order=[sources[slot] for slot in best.order]) for best in ranking]
                yield document.row, orders, log_likelihood

    @torch.no_grad()
    def _outputs(
        self,
        documents: Sequence[Sequence[str]],
        batch_size: int,
        names: Sequence[str],
        *,
        with_positions: bool = False,
        what: str = "documents",
    ) -> Iterator[tuple[Sequence[PlannedDocument], Batch, OrderingOutput]]:
        """What the model says of each batch of the documents, and which these are."""
        if not documents:
            return
        model: Any = self
        was_training = model.training
        model.eval()
        try:
            columns = encode_documents(
                documents, model.tokenizer, model.config.max_length, names, per_sentence=model.reading.per_sentence
            )
            cuts = describe_cuts(columns, what=what)
            if cuts:
                logger.warning(cuts)
            collate = model.collator(seed=SHUFFLE_SEED, with_positions=with_positions)
            for planned in GlobalPlan(columns["length"], batch_size):
                items = [EncodedDocument(document, columns["sentence_ids"][document.row]) for document in planned]
                batch = {name: tensor.to(model.device) for name, tensor in collate(items).items()}
                yield planned, cast(Batch, batch), model.forward_passes(batch)
        finally:
            model.train(was_training)


def _with_spare(k: int, documents: Sequence[Sequence[str]]) -> int:
    """How many orders to ask for, so that k of them differ in more than copies."""
    if k == 1:
        return 1
    arrangements = max(math.prod(map(math.factorial, Counter(sentences).values())) for sentences in documents)
    return max(k, min(k * arrangements, MOST_ORDERS))


def _distinct(ranking: Sequence[Decoded], sentences: Sequence[str], k: int) -> list[Decoded]:
    """The first k that differ in more than copies of a sentence; these stand as they were given."""
    distinct: dict[tuple[int, ...], Decoded] = {}
    for found in ranking:
        order = in_source_order(found.order, sentences)
        distinct.setdefault(tuple(order), found._replace(order=order))
    return list(distinct.values())[:k]


def _check_documents(documents: Sequence[Sequence[str]], names: Sequence[str] | None) -> None:
    for number, document in enumerate(documents):
        name = names[number] if names else f"documents[{number}]"
        a_list = isinstance(document, Sequence) and not isinstance(document, str)
        if not a_list or not all(isinstance(sentence, str) for sentence in document):
            raise UserError(f"{name}: a document is a list of sentences, each a string.")
        if len(document) == 0 or not all(sentence.strip() for sentence in document):
            raise UserError(f"{name}: has an empty sentence or none at all; repair or remove it.")

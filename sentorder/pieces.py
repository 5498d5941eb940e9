"""Documents of any length, put into order piece by piece: pieces in which all sentences meet, and their merged votes.

For documents that are longer than what a model reads at once, or than what it was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from .contracts import Decoded
from .data.collation import shuffle_slots
from .order_search import best_orders


class Pieces:
    """Documents, and the pieces that they are put into order by.

    The sentences of a document that is too long are dealt out to blocks of half a piece, by chance (their own text
    decides, not where they stand), and every two blocks make a piece: n sentences make about ``2 (n / length)^2`` for
    an even length, and an odd one counts as the even one below it (3 as 2).
    """

    def __init__(self, documents: Sequence[Sequence[str]], length: int) -> None:
        """Cut the documents.

        Args:
            documents: the sentences of each, in any order.
            length: the most sentences of a piece, at least 2.
        """
        self.documents = documents
        self.document_of: list[int] = []
        """For each piece, whose it is; those of one document are next to each other."""
        self.members: list[list[int]] = []
        """For each piece, which sentences of its document it has."""
        self.rows: list[range] = []
        """For each document, which pieces are its own."""
        for number, sentences in enumerate(documents):
            pieces = _meeting_pieces(sentences, length)
            self.rows.append(range(len(self.members), len(self.members) + len(pieces)))
            self.members += pieces
            self.document_of += [number] * len(pieces)

    def sentences(self) -> list[list[str]]:
        """Of each piece."""
        texts: Sequence[str] = []
        found = []
        for piece, (document, members) in enumerate(zip(self.document_of, self.members, strict=True)):
            if piece == self.rows[document].start:  # a document may have to be read from disk: once
                texts = self.documents[document]
            found.append([texts[member] for member in members])
        return found

    def names(self, names: Sequence[str]) -> list[str]:
        """What an error calls each piece, from what it calls the documents."""
        return [names[document] for document in self.document_of]

    def table(self, names: Sequence[str]) -> Dataset:
        """The pieces as a table that can be tokenised."""
        return Dataset.from_dict({"sentences": self.sentences(), "origin": self.names(names)})

    def merged(self, document: int, found: Sequence[Decoded], *, k: int = 1) -> list[Decoded]:
        """The k best orders of a document that was cut, by the votes of its pieces.

        Each piece has a vote on each pair of its sentences; an order is as good as the sum of its pairs' mean votes.

        Args:
            document: its number.
            found: the order of each of its pieces, as indices into the piece.
            k: at least 1.

        Returns:
            Orders as indices into the document. Confidence is the share of the votes that an order follows, less those
            that it does not, times the mean confidence of the pieces.
        """
        members = [self.members[row] for row in self.rows[document]]
        # Ties fall by number, so the sentences are numbered as they were dealt out.
        labels = np.array(list(dict.fromkeys(itertools.chain.from_iterable(members))))
        n = len(labels)
        votes = np.zeros((n, n))
        for piece, decoded in zip(members, found, strict=True):
            order = [piece[slot] for slot in decoded.order]
            for place, sentence in enumerate(order):
                votes[sentence, order[place + 1 :]] += 1
        together = votes + votes.T
        pairs = (votes - votes.T) / np.maximum(together, 1)
        ranked = best_orders(pairs[None, labels[:, None], labels], k=k)
        certain = float(np.mean([decoded.confidence for decoded in found]))
        merged = []
        for order, score in zip(labels[ranked.orders[0]], ranked.scores[0].tolist(), strict=True):
            if score > -np.inf:
                followed = np.triu(pairs[np.ix_(order, order)], 1).sum() / (n * (n - 1) / 2)
                merged.append(Decoded(order.tolist(), score, max(0.0, float(followed)) * certain))
        return merged


def _meeting_pieces(sentences: Sequence[str], length: int) -> list[list[int]]:
    """Pieces of a document in which every two of its sentences meet; one with all of them if they fit."""
    n = len(sentences)
    if n <= length:
        return [list(range(n))]
    shuffled = shuffle_slots([list(sentence.strip().encode()) for sentence in sentences], 0, 0)
    count = -(-n // (length // 2))
    blocks = [shuffled[number::count] for number in range(count)]
    return [first + second for first, second in itertools.combinations(blocks, 2)]

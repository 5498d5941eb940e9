"""Documents that are put into order piece by piece."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentorder import SentenceOrderer, UserError
from sentorder.contracts import Decoded
from sentorder.data.documents import Document
from sentorder.evaluation import scores_of
from sentorder.metrics import kendall_tau, positions_of
from sentorder.pieces import Pieces
from tests.conftest import Run, write_documents


def numbered(n: int) -> list[str]:
    return [f"Sentence {number}." for number in range(n)]


def decode(pieces: Pieces, document: int, places: Sequence[float], confidence: float = 1.0) -> list[Decoded]:
    """The order of each piece of a document, by a number for each sentence."""
    found = []
    for row in pieces.rows[document]:
        members = pieces.members[row]
        found.append(Decoded(sorted(range(len(members)), key=lambda slot: places[members[slot]]), 0.0, confidence))
    return found


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(2, 20))
def test_every_two_sentences_meet(counts: list[int], length: int) -> None:
    pieces = Pieces([numbered(n) for n in counts], length)
    assert max(map(len, pieces.members)) <= length
    assert [row for rows in pieces.rows for row in rows] == list(range(len(pieces.members)))
    for document, n in enumerate(counts):
        own = [pieces.members[row] for row in pieces.rows[document]]
        met = {frozenset(pair) for piece in own for pair in itertools.combinations(piece, 2)}
        assert len(met) == n * (n - 1) // 2
        assert set(itertools.chain.from_iterable(own)) == set(range(n))
        assert len(own) == 1 or n > length
        assert {pieces.document_of[row] for row in pieces.rows[document]} == {document}


@given(st.integers(3, 40), st.integers(2, 12), st.integers(0, 99))
def test_pieces_in_the_right_order_make_a_whole_in_the_right_order(n: int, length: int, seed: int) -> None:
    places = list(range(n))
    random.Random(seed).shuffle(places)
    pieces = Pieces([numbered(2), numbered(n)], min(length, n - 1))
    (best,) = pieces.merged(1, decode(pieces, 1, places, confidence=0.5))
    assert [places[sentence] for sentence in best.order] == list(range(n))
    assert best.score == pytest.approx(n * (n - 1) / 2)
    assert best.confidence == pytest.approx(0.5)


def test_a_vote_against_many_is_outvoted() -> None:
    pieces = Pieces([numbered(12)], 4)
    found = decode(pieces, 0, range(12))
    found[0] = found[0]._replace(order=found[0].order[::-1])
    # Each block of two sentences is in five pieces: about the two, four votes stand against one. About two sentences of
    # different blocks only one piece votes, so four pairs of 66 may come out wrong, and no more.
    (best,) = pieces.merged(0, found)
    positions = positions_of(best.order)
    for block in (pieces.members[0][:2], pieces.members[0][2:]):
        assert positions[min(block)] < positions[max(block)]
    assert kendall_tau(positions, range(12)) >= 1 - 2 * 4 / 66
    assert best.confidence < 1


@given(st.integers(0, 99))
def test_where_the_sentences_stood_plays_no_part(seed: int) -> None:
    texts, random_order = numbered(17), random.Random(seed)
    places = {text: random_order.random() for text in texts}

    def merged(given: list[str]) -> list[str]:
        pieces = Pieces([given], 5)
        # Each piece is put into an order that has nothing to do with that of the others, so there are ties.
        found = [
            Decoded(sorted(range(len(piece)), key=lambda slot: hash_of(places, [given[i] for i in piece], slot)), 0, 0)
            for piece in pieces.members
        ]
        return [given[sentence] for sentence in pieces.merged(0, found)[0].order]

    expected = merged(texts)
    random_order.shuffle(texts)
    assert merged(texts) == expected


def hash_of(places: dict[str, float], piece: list[str], slot: int) -> float:
    return (places[piece[slot]] * (1 + sum(places[text] for text in sorted(piece)))) % 1.0


def test_further_orders_are_other_ones() -> None:
    pieces = Pieces([numbered(9)], 4)
    found = pieces.merged(0, decode(pieces, 0, range(9)), k=5)
    assert len({tuple(best.order) for best in found}) == 5
    assert found[0].order == list(range(9))
    assert [best.score for best in found[1:]] == [34.0] * 4  # two neighbours changed places: one pair of 36 is lost


@pytest.mark.parametrize("method", ["pairwise", "pointer", "regression"])
def test_a_model_orders_what_it_cannot_read_at_once(tiny_encoder: str, documents: list[Document], method: str) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, method=method, backbone="joint", max_length=40)
    long = [sentence for document in documents[:8] for sentence in document.sentences]
    long = list(dict.fromkeys(long))[:30]
    short = documents[0].sentences
    with pytest.raises(UserError, match="--piece_length"):
        model.order([long])
    usual = model.order([short])[0]
    model.set_decoding(piece_length=8)
    found_short, found_long = model.order([short, long], batch_size=7)
    assert found_short.order == usual.order  # one piece
    assert found_short.confidence == pytest.approx(usual.confidence, abs=1e-5)
    assert sorted(found_long.order) == list(range(30)) and 0 <= found_long.confidence <= 1
    assert model.order([long[::-1]])[0].sentences == found_long.sentences
    best, second = model.best_orders([long], 2)[0]
    assert best.sentences == found_long.sentences and second.sentences != best.sentences
    (rated,) = model.score([found_long.sentences])
    assert rated.tau == pytest.approx(1.0) and rated.log_likelihood is None
    model.set_decoding()
    assert model.decoding.piece_length is None


def test_copies_of_a_sentence_are_one_order(tiny_encoder: str) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, method="pairwise", backbone="joint")
    model.set_decoding(piece_length=4)
    ranking = model.best_orders([["It rained.", "It rained.", *numbered(6)]], 4)[0]
    assert len({tuple(found.sentences) for found in ranking}) == 4


@pytest.mark.parametrize("length", [1, 2.5, "8"])
def test_a_wrong_length(tiny_encoder: str, length: object) -> None:
    with pytest.raises(UserError, match=f"--piece_length {length}: must be a whole number, at least 2"):
        SentenceOrderer.from_encoder(tiny_encoder).set_decoding(piece_length=length)  # type: ignore[arg-type]


def test_the_commands_score_and_print_the_whole(
    run: Run, tiny_encoder: str, documents: list[Document], tmp_path: Path
) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, method="regression", backbone="joint", max_length=40)
    model.save_pretrained(tmp_path / "model")
    sentences = list(dict.fromkeys(sentence for document in documents for sentence in document.sentences))
    wholes = [Document("long", sentences[:31]), *documents[:3], Document("longer", sentences[31:64])]
    file = write_documents(tmp_path / "long.jsonl", wholes)
    asked = ("--model_path", str(tmp_path / "model"), "--piece_length", "8")
    evaluated = run(
        "python", "-m", "sentorder.evaluation", *asked, "--dataset", str(file), "--output_dir", str(tmp_path / "out")
    )
    assert evaluated.returncode == 0, evaluated.stderr
    # 31 and 33 sentences make 8 and 9 blocks of at most four, and each two of them a piece.
    assert "in 67 pieces of at most 8 sentences" in evaluated.stderr
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [document.id for document in wholes]
    model.set_decoding(piece_length=8)
    expected = [found.order for found in model.order([document.sentences for document in wholes])]
    assert [row["order"] for row in rows] == expected
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["kendall_tau"] == pytest.approx(scores_of(expected)["kendall_tau"])
    assert results["documents"] == 5 and "loss" not in results
    predicted = run("python", "-m", "sentorder.predict", *asked, str(file))
    assert predicted.returncode == 0, predicted.stderr
    assert [json.loads(line)["order"] for line in predicted.stdout.splitlines()] == expected

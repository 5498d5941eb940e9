"""Using a model: best orders and coherence."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from sentorder import SentenceOrderer
from sentorder.data.document_tables import to_dataset
from sentorder.data.documents import Document
from sentorder.data.tokenization import tokenize
from sentorder.errors import UserError
from sentorder.evaluation import describe_scores, evaluate, evaluation_loader, scores_of
from sentorder.metrics import kendall_tau, positions_of
from tests.test_encoders import make_encoder


@pytest.fixture
def model(any_model: SentenceOrderer) -> SentenceOrderer:
    return any_model


def test_best_orders_begin_with_the_best(model: SentenceOrderer, documents: list[Document]) -> None:
    texts = [["One sentence."], ["It rained.", "We ran."], *(document.sentences for document in documents[:5])]
    single, rankings = model.order(texts), model.best_orders(texts, 3)
    assert [best.order for best in single] == [ranking[0].order for ranking in rankings]
    assert [len(ranking) for ranking in rankings] == [1, 2, 3, 3, 3, 3, 3]
    for text, ranking in zip(texts, rankings, strict=True):
        assert len({tuple(found.order) for found in ranking}) == len(ranking)
        assert [found.score for found in ranking] == sorted((found.score for found in ranking), reverse=True)
        for found in ranking:
            assert found.sentences == [text[index] for index in found.order] and 0 <= found.confidence <= 1


def test_the_given_order_is_rated_and_cannot_leak(model: SentenceOrderer, documents: list[Document]) -> None:
    text = documents[0].sentences
    predicted = model.order([text])[0].sentences
    for given in (text, text[::-1], predicted):
        (score,) = model.score([given])
        assert [given[index] for index in score.order] == predicted
        assert score.tau == pytest.approx(kendall_tau(range(len(text)), [predicted.index(s) for s in given]))
    assert model.score([predicted])[0].tau == pytest.approx(1.0)
    assert model.score([predicted[::-1]])[0].tau == pytest.approx(-1.0)
    assert math.isnan(model.score([["Alone."]])[0].tau)


def test_sentences_that_only_look_the_same_to_the_tokenizer_are_no_gift(tiny_encoder: str) -> None:
    """In training they share their labels by slot; an evaluation that went by these would find them in order."""
    model = SentenceOrderer.from_encoder(tiny_encoder, method="as-shuffled")
    table = model.tokenize(to_dataset([Document(str(i), [f"Day {i}.", f"DAY {i}."]) for i in range(400)]))
    ((first, second),) = table[:1]["sentence_ids"]
    assert first == second
    accelerator = Accelerator(cpu=True)
    result = evaluate(accelerator, model, evaluation_loader(accelerator, model, table, 50), table)
    assert abs(result.scores["kendall_tau"]) < 0.15  # three standard errors


def test_the_likelihood_is_a_distribution_over_orders(tiny_encoder: str) -> None:
    torch.manual_seed(0)
    pointer = SentenceOrderer.from_encoder(tiny_encoder, method="pointer")
    text = ["The sun rose.", "Birds sang in the trees.", "It was noon.", "Night fell."]
    scores = pointer.score([list(given) for given in itertools.permutations(text)])
    likelihoods = [score.log_likelihood for score in scores]
    assert all(value is not None for value in likelihoods)
    assert math.isclose(sum(math.exp(value) for value in likelihoods if value is not None), 1.0, rel_tol=1e-4)
    best = pointer.order([text])[0]
    assert pointer.score([best.sentences])[0].log_likelihood == pytest.approx(best.score, abs=1e-5)
    assert SentenceOrderer.from_encoder(tiny_encoder, method="pairwise").score([text])[0].log_likelihood is None


def test_sentences_that_are_alike_are_interchangeable(model: SentenceOrderer) -> None:
    """Whichever copy comes first, it is no error."""
    text = ["Knock.", "Who is it?", "Knock.", "Nobody answered.", "Knock."]
    (best,) = model.order([text])
    (score,) = model.score([best.sentences])
    assert score.tau == pytest.approx(1.0) and score.order == [0, 1, 2, 3, 4]
    documents = [Document("x", best.sentences), Document("y", ["Same.", "Same."])]
    table = tokenize(to_dataset(documents), model.tokenizer, model.config.max_length)
    accelerator = Accelerator(cpu=True)
    result = evaluate(accelerator, model, evaluation_loader(accelerator, model, table, 2), table)
    assert result.scores["kendall_tau"] == pytest.approx(1.0) and result.scores["perfect_match_ratio"] == 1.0
    assert positions_of(result.records[1].order).tolist() == [0, 1]


def test_an_evaluation_has_intervals_and_genres(tiny_encoder: str, documents: list[Document]) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder)
    some = [*documents[:5], Document("mine", documents[5].sentences), Document("mine", documents[6].sentences)]
    some.append(Document("mine (2)", documents[7].sentences))
    table = tokenize(to_dataset(some), model.tokenizer, model.config.max_length)
    accelerator = Accelerator(cpu=True)
    result = evaluate(accelerator, model, evaluation_loader(accelerator, model, table, 4), table)
    rows = result.predictions(table)
    # No two have one id, or they could not be compared later.
    assert [row["id"] for row in rows] == [*(document.id for document in documents[:5]), "mine", "mine (3)", "mine (2)"]
    assert [row.get("genre") for row in rows] == [*(document.genre for document in documents[:5]), None, None, None]
    assert documents[0].genre is not None and "genre" not in rows[5]
    scores = scores_of([row["order"] for row in rows])
    assert {name: result.scores[name] for name in scores} == scores


def test_the_interval_is_said_where_there_is_one() -> None:
    orders = [[0, 1, 2, 3], [1, 0, 3, 2], [0, 1, 3, 2], [3, 2, 1, 0], [1, 0]]
    scores = scores_of(orders)
    taus = [1, 1 / 3, 2 / 3, -1, -1]
    assert scores["kendall_tau"] == pytest.approx(sum(taus) / 5) and scores["documents"] == 5
    assert -1 < scores["kendall_tau_low"] < scores["kendall_tau"] < scores["kendall_tau_high"] < 1
    assert scores["accuracy_low"] < scores["accuracy"] < scores["accuracy_high"]
    line = describe_scores(scores)
    interval = f"(95 %: {scores['kendall_tau_low']:.4f} to {scores['kendall_tau_high']:.4f})"
    assert line == f"Kendall's tau 0.0000 {interval}, accuracy 0.3000, perfect match ratio 0.2000 over 5 documents"
    alone = describe_scores(scores_of([[1, 0], [0]]))
    assert alone == "Kendall's tau -1.0000, accuracy 0.0000, perfect match ratio 0.0000 over 1 documents"


def test_orders_that_differ_in_copies_alone_are_one(model: SentenceOrderer) -> None:
    text = ["Knock.", "Who is it?", "Knock."]
    orders = model.best_orders([text, ["Only one.", "Two."]], 6)
    assert sorted(found.sentences for found in orders[0]) == [
        ["Knock.", "Knock.", "Who is it?"],
        ["Knock.", "Who is it?", "Knock."],
        ["Who is it?", "Knock.", "Knock."],
    ]
    assert all(found.order.index(0) < found.order.index(2) for found in orders[0]) and len(orders[1]) == 2
    assert len(model.best_orders([text], 2)[0]) == 2


def test_white_space_does_not_tell_where_a_sentence_stood(documents: list[Document], tmp_path: Path) -> None:
    """A byte-level tokenizer would see that the first sentence of a text has no space before it."""
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(str(make_encoder(tmp_path, "roberta", documents)), method="pointer")
    plain = model.score([["The sun rose.", "It set.", "Night fell."]])
    assert model.score([["The sun rose.", " It set. ", "\tNight fell.\n"]]) == plain


@pytest.mark.parametrize(
    ("given", "k", "message"),
    [
        ([1], 1, r"documents\[0\]: a document is a list of sentences"),
        (["abc"], 1, r"documents\[0\]: a document is a list of sentences"),
        ([["a", "b"], ["a", 2]], 1, r"documents\[1\]: a document is a list of sentences"),
        ([["a", " "]], 1, r"documents\[0\]: has an empty sentence"),
        ([["a", "b"]], 0, "k 0: must be a whole number, at least 1"),
        ([["a", "b"]], 2.5, "k 2.5: must be a whole number"),
    ],
)
def test_what_is_no_document(model: SentenceOrderer, given: Any, k: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.best_orders(given, k)
    with pytest.raises(UserError, match=message):
        list(model.iter_orders(given, k))

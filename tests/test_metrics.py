import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import sentorder.ordering_metric
from sentorder.metrics import (
    FIGURES,
    SENTENCES,
    accuracy,
    figures_of_documents,
    first_sentence,
    kendall_tau,
    last_sentence,
    longest_common_subsequence,
    ordering_metrics,
    perfect_match,
    positions_of,
    skip_bigram,
    spearman,
    within,
)
from sentorder.ordering_metric import SentenceOrdering

PERMUTATIONS = st.integers(2, 9).flatmap(lambda n: st.permutations(range(n)))


def test_worked_example() -> None:
    # One swap of neighbours among five.
    positions = positions_of([0, 2, 1, 3, 4])
    gold = np.arange(5)
    assert math.isclose(kendall_tau(positions, gold), 0.8)
    assert accuracy(positions, gold) == 0.6
    assert perfect_match(positions, gold) == 0.0
    assert perfect_match(gold, gold) == accuracy(gold, gold) == 1.0
    assert math.isclose(kendall_tau(gold[::-1], gold), -1.0)
    assert longest_common_subsequence(positions, gold) == 0.8
    assert skip_bigram(positions, gold) == 0.9
    assert within(positions, gold, 1) == 1.0 and within(positions, gold, 0) == accuracy(positions, gold)
    assert first_sentence(positions, gold) == last_sentence(positions, gold) == 1.0
    assert math.isclose(spearman(positions, gold), 0.9)


def test_another_worked_example() -> None:
    # The last sentence is put first: all others move by one.
    positions, gold = positions_of([4, 0, 1, 2, 3]), np.arange(5)
    assert math.isclose(kendall_tau(positions, gold), 0.2)
    assert accuracy(positions, gold) == 0.0
    assert longest_common_subsequence(positions, gold) == 0.8
    assert skip_bigram(positions, gold) == 0.6
    assert [within(positions, gold, distance) for distance in (1, 2, 3, 4)] == [0.8, 0.8, 0.8, 1.0]
    assert first_sentence(positions, gold) == last_sentence(positions, gold) == 0.0
    assert math.isclose(spearman(positions, gold), 0.0)  # 1 - 6 (16 + 4) / 120


def test_the_reverse_order() -> None:
    gold = np.arange(6)
    positions = gold[::-1]
    assert longest_common_subsequence(positions, gold) == 1 / 6
    assert skip_bigram(positions, gold) == 0.0 and math.isclose(spearman(positions, gold), -1.0)
    assert [within(positions, gold, distance) for distance in (1, 2, 3, 4, 5)] == [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1.0]


@given(PERMUTATIONS)
def test_longest_common_subsequence_is_that_of_the_two_sequences(order: list[int]) -> None:
    """By the textbook's quadratic table over the sequences of sentences themselves."""
    n = len(order)
    table = np.zeros((n + 1, n + 1), dtype=int)
    for i in range(n):
        for j in range(n):
            table[i + 1, j + 1] = table[i, j] + 1 if order[i] == j else max(table[i, j + 1], table[i + 1, j])
    assert longest_common_subsequence(positions_of(order), range(n)) == table[n, n] / n


@given(PERMUTATIONS)
def test_against_scipy_and_each_other(order: list[int]) -> None:
    positions, gold = positions_of(order), np.arange(len(order))
    tau = kendall_tau(positions, gold)
    assert math.isclose(skip_bigram(positions, gold), (tau + 1) / 2, abs_tol=1e-12)
    assert math.isclose(kendall_tau(positions[::-1], gold), -tau, abs_tol=1e-12)
    assert math.isclose(spearman(positions, gold), stats.spearmanr(positions, gold).statistic, abs_tol=1e-12)
    assert math.isclose(spearman(positions[::-1], gold), -spearman(positions, gold), abs_tol=1e-12)
    # The reverse of both changes who is first and last, and nothing else.
    assert first_sentence(positions, gold) == last_sentence(positions[::-1].max() - positions, gold[::-1])


@given(PERMUTATIONS, st.randoms())
def test_no_figure_depends_on_how_sentences_are_numbered(order: list[int], random: object) -> None:
    names = list(range(len(order)))
    random.shuffle(names)  # type: ignore[attr-defined]
    positions, gold = positions_of(order), np.arange(len(order))
    for figure in FIGURES.values():
        assert math.isclose(figure(positions, gold), figure(positions[names], gold[names]), abs_tol=1e-12)


@given(PERMUTATIONS)
def test_tau_counts_inversions(order: list[int]) -> None:
    positions, n = positions_of(order), len(order)
    assert [order[place] for place in positions] == list(range(n)) or sorted(positions) == list(range(n))
    inversions = sum(positions[i] > positions[j] for i in range(n) for j in range(i + 1, n))
    assert math.isclose(kendall_tau(positions, range(n)), 1 - 4 * inversions / (n * (n - 1)), abs_tol=1e-12)


@given(PERMUTATIONS, st.randoms())
def test_ranks_do_not_depend_on_sentence_ids_but_id_sequences_do(order: list[int], random: object) -> None:
    """Renaming the sentences changes neither tau nor accuracy, because both take positions per sentence."""
    names = list(range(len(order)))
    random.shuffle(names)  # type: ignore[attr-defined]
    gold = np.arange(len(order))
    positions = positions_of(order)
    renamed_positions, renamed_gold = np.empty_like(positions), np.empty_like(gold)
    renamed_positions[names], renamed_gold[names] = positions, gold
    assert math.isclose(kendall_tau(positions, gold), kendall_tau(renamed_positions, renamed_gold), abs_tol=1e-12)
    assert accuracy(positions, gold) == accuracy(renamed_positions, renamed_gold)


def test_documents_count_once_and_single_sentences_not_at_all() -> None:
    predictions = [[1, 0], [0, 1, 2, 3], [0]]
    references = [[0, 1], [0, 1, 2, 3], [0]]
    assert ordering_metrics(predictions, references) == {
        "kendall_tau": 0.0,
        "accuracy": 0.5,
        "perfect_match_ratio": 0.5,
        "longest_common_subsequence": 0.75,
        "skip_bigram": 0.5,
        "within_1": 1.0,
        "within_2": 1.0,
        "within_3": 1.0,
        "first_sentence": 0.5,
        "last_sentence": 0.5,
        "spearman": 0.0,
        "kendall_tau_micro": pytest.approx(1 - 4 * 1 / (2 + 12)),  # one inversion; the long document decides
        "accuracy_micro": pytest.approx(4 / 6),
        "documents": 2,
        "single_sentence_documents": 1,
    }


def test_nothing_but_single_sentences_is_no_number_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    scores = ordering_metrics([[0]], [[0]])
    assert scores.pop("single_sentence_documents") == 1 and scores.pop("documents") == 0
    assert all(math.isnan(value) for value in scores.values()) and len(scores) == 13
    assert len(recwarn) == 0


def test_one_document_without_an_order_does_not_take_the_others_along() -> None:
    scores = ordering_metrics([[1, 1, 1], [0, 1, 2]], [[0, 1, 2], [0, 1, 2]])
    assert scores["kendall_tau"] == 0.5 and scores["kendall_tau_micro"] == 0.5
    assert all(math.isfinite(value) for value in scores.values())


@given(st.lists(PERMUTATIONS, min_size=1, max_size=5))
def test_micro_figures_are_those_over_all_pairs_and_all_sentences(orders: list[list[int]]) -> None:
    predictions = [positions_of(order) for order in orders]
    lengths = [len(order) for order in orders]
    scores = ordering_metrics(predictions, [np.arange(n) for n in lengths])
    inversions = sum(int(p[i] > p[j]) for p in predictions for j in range(len(p)) for i in range(j))
    tau = 1 - 4 * inversions / sum(n * (n - 1) for n in lengths)
    assert math.isclose(scores["kendall_tau_micro"], tau, abs_tol=1e-12)
    right = sum(int(np.sum(p == np.arange(len(p)))) for p in predictions)
    assert math.isclose(scores["accuracy_micro"], right / sum(lengths), abs_tol=1e-12)


def test_figures_of_documents_keep_their_order() -> None:
    figures = figures_of_documents([[1, 0], [0], [0, 1, 2]], [[0, 1], [0], [0, 1, 2]])
    assert figures[SENTENCES].tolist() == [2, 3] and figures["kendall_tau"].tolist() == [-1.0, 1.0]


def test_a_constant_predictor_is_not_rewarded() -> None:
    random = np.random.default_rng(0)
    gold = [random.permutation(5) for _ in range(2000)]
    scores = ordering_metrics([np.arange(5)] * 2000, gold)
    assert abs(scores["kendall_tau"]) < 0.04 and abs(scores["accuracy"] - 0.2) < 0.02


@pytest.mark.parametrize("order", [[2, 0], [0, 0, 1], [1, 2, 3]])
def test_what_is_no_permutation_is_refused(order: list[int]) -> None:
    with pytest.raises(ValueError, match="not a permutation"):
        positions_of(order)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        kendall_tau([0, 1], [0, 1, 2])
    with pytest.raises(ValueError):
        ordering_metrics([[0, 1]], [])
    with pytest.raises(ValueError, match="equally long"):
        ordering_metrics([[0, 1]], [[0]])


@pytest.mark.parametrize("loaded", ["class", "file"])
def test_the_evaluate_metric(loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if loaded == "class":
        metric = SentenceOrdering(keep_in_memory=True)
    else:
        monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path))
        metric = evaluate.load(sentorder.ordering_metric.__file__, keep_in_memory=True)
    metric.add_batch(predictions=[[0, 2, 1, 3, 4]], references=[[0, 1, 2, 3, 4]])
    metric.add_batch(predictions=[[0, 1], [1, 0, 2]], references=[[0, 1], [0, 1, 2]])
    scores = metric.compute()
    assert math.isclose(scores["kendall_tau"], (0.8 + 1 + 1 / 3) / 3)
    assert math.isclose(scores["perfect_match_ratio"], 1 / 3) and scores["documents"] == 3
    assert math.isclose(scores["kendall_tau_micro"], 1 - 4 * 2 / (20 + 2 + 6))
    assert math.isclose(scores["longest_common_subsequence"], (0.8 + 1 + 2 / 3) / 3)

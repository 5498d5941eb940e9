import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sentorder.ordering_metric
from sentorder.metrics import accuracy, kendall_tau, ordering_metrics, perfect_match, positions_of
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
        "documents": 2,
        "single_sentence_documents": 1,
    }
    assert math.isnan(ordering_metrics([[0]], [[0]])["kendall_tau"])


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

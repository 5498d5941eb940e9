"""Figures as three other repositories compute them.

The expected numbers were printed by the original functions for these very orders (``topological_sort.py``: ``Stats``,
``run_glue.py``: ``cal_result``, ``eval/evaluation.py``: ``evaluate``), run outside this repository; on 6,000 random
documents of 1 to 12 sentences, and as many malformed outputs, they agreed with ours to 1e-14 as well.
"""

import pytest

from sentorder.compatibility import REPOSITORIES, Figure, berson, btsort, rebart
from sentorder.metrics import ordering_metrics, positions_of

ORDERS = [
    [0, 2, 1, 3, 4],
    [0],
    [1, 0],
    [0, 1, 2, 3],
    [3, 1, 0, 2],
    [2, 0, 1],
    [5, 4, 3, 2, 1, 0],
    [0, 1, 2, 3, 4, 5, 7, 6],
    [6, 0, 1, 2, 3, 4, 5, 8, 7, 9, 11, 10],
]


def values(figures: list[Figure]) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in figures}


def exactly(number: float) -> object:
    return pytest.approx(number, rel=0, abs=1e-9)


def test_btsort() -> None:
    assert values(btsort(ORDERS)) == {
        "Perfect Match": exactly(12.5),
        "Sentence Accuracy": exactly(34.09090909090909),
        "Rouge-S": None,
        "LCS": exactly(68.18181818181819),
        "Kendall Tau Ratio": exactly(0.10243506493506496),
        "Min Dist Metric for window 1": exactly(81.81818181818181),
        "Min Dist Metric for window 2": exactly(86.36363636363636),
        "Min Dist Metric for window 3": exactly(93.18181818181819),
    }


def test_berson() -> None:
    assert values(berson(ORDERS)) == {
        "acc_dev": exactly(0.40925925925925927),
        "pmr_dev": exactly(0.2222222222222222),
        "taus_dev": exactly(0.20216450216450219),
    }


def test_rebart() -> None:
    assert values(rebart(ORDERS)) == {
        "sample(s) were not processed": 0.0,
        "Accuracy": exactly(0.35555555555555557),
        "PMR": exactly(0.2222222222222222),
        "Kendall's Tau": exactly(0.2021645021645021),
        "LCS": exactly(0.6888888888888889),
        "Rouge-S": exactly(0.6010822510822511),
    }


def test_rebart_with_what_is_no_order() -> None:
    """Sentences left out, twice, none at all, unknown, one too many, and all the same."""
    orders = [[2, 0], [2, 0, 3, 3, 1], [], [7, 1, 2], [4, 0], [0], [1, 1, 1]]
    assert values(rebart(orders, lengths=[5, 5, 4, 3, 1, 2, 3])) == {
        "sample(s) were not processed": 4.0,
        "Accuracy": exactly(0.21739130434782608),
        "PMR": 0.0,
        "Kendall's Tau": exactly(0.015058465048420852),
        "LCS": exactly(0.34782608695652173),
        "Rouge-S": exactly(0.23333333333333334),
    }


@pytest.mark.parametrize(("order", "tau"), [([0, 1], 1.0), ([0, 1, 2, 2, 4], 0.9486832980505138)])
def test_rebart_rewards_what_is_left_out(order: list[int], tau: float) -> None:
    """Two of five sentences are a perfect tau there."""
    assert values(rebart([order], lengths=[5]))["Kendall's Tau"] == exactly(tau)


def test_where_they_differ_from_ours() -> None:
    ours = ordering_metrics([positions_of(order) for order in ORDERS], [range(len(order)) for order in ORDERS])
    theirs = values(btsort(ORDERS))
    assert theirs["Sentence Accuracy"] == exactly(100 * ours["accuracy_micro"])
    assert theirs["Kendall Tau Ratio"] == exactly(ours["kendall_tau"])
    assert values(berson(ORDERS))["acc_dev"] == exactly((8 * ours["accuracy"] + 1) / 9)  # one sentence counts as 1
    assert values(rebart(ORDERS))["Rouge-S"] == exactly((8 * ours["skip_bigram"] + 1) / 9)
    assert abs(ours["accuracy"] - ours["accuracy_micro"]) > 0.005


@pytest.mark.parametrize("name", REPOSITORIES)
def test_every_figure_is_explained_and_none_is_made_up_of_nothing(name: str) -> None:
    assert all(len(figure.note) > 20 for figure in REPOSITORIES[name](ORDERS))
    figures = {figure.name: figure.value for figure in REPOSITORIES[name]([])}
    assert figures.pop("sample(s) were not processed", 0.0) == 0.0
    assert set(figures.values()) == {None}

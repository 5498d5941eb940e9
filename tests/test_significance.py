import numpy as np
import pytest
from scipy import stats

from sentorder.significance import mean_interval, over_runs, paired_difference, sign_flip_p_value


def test_interval_of_a_coin() -> None:
    """Of 400 coins the mean has a standard error of 0.025: the interval must be that of the normal distribution."""
    interval = mean_interval(np.repeat([0.0, 1.0], 200))
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of skewed values in 400 samples of 60; the two bounds are four standard errors of such a count away."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        low, high = mean_interval(random.beta(4, 1, size=60), resamples=500)
        covered += low <= 0.8 <= high
    assert 0.95 - 0.045 < covered / 400 < 0.95 + 0.045


def test_the_same_values_give_the_same_interval_and_another_seed_almost() -> None:
    values = np.random.default_rng(2).normal(size=100)
    assert mean_interval(values) == mean_interval(values)
    other = mean_interval(values, seed=1)
    assert other != mean_interval(values) and np.allclose(other, mean_interval(values), atol=0.02)


def test_many_documents_are_drawn_in_parts_and_alike() -> None:
    """More numbers than fit into one part: 3,000 documents, 10,000 times."""
    values = np.random.default_rng(3).normal(size=3000)
    low, high = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(3000)
    assert (low, high) == (
        pytest.approx(values.mean() - error, abs=error / 20),
        pytest.approx(values.mean() + error, abs=error / 20),
    )


@pytest.mark.parametrize("documents", [3, 8, 12])
def test_sign_flips_against_all_signs(documents: int) -> None:
    """scipy tries all of them where there are few."""
    differences = np.random.default_rng(documents).normal(0.3, 1, size=documents)
    exact = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, axis=-1, n_resamples=np.inf
    ).pvalue
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=0.02)


def test_sums_that_are_equal_are_counted_as_such() -> None:
    """0.1 + 0.2 is not 0.3 in floating point: all four signs of equal sum must count."""
    # |+-0.1 +-0.2 +-0.3| >= 0.6 in 2 of 8 cases, >= 0 in all.
    assert sign_flip_p_value(np.array([0.1, 0.2, 0.3])) == pytest.approx(0.25, abs=0.02)
    assert sign_flip_p_value(np.array([0.1, 0.2, -0.3])) == 1.0


def test_documents_on_which_both_are_alike_change_no_p_value() -> None:
    differences = np.array([0.4, -0.2, 0.6, 0.2, 0.8])
    assert sign_flip_p_value(np.append(differences, np.zeros(50))) == sign_flip_p_value(differences)


def test_p_values_are_even_where_nothing_is_to_be_found() -> None:
    """Of 400 pairs of systems that are alike, about a tenth may have a p value in each tenth of 0 to 1."""
    random = np.random.default_rng(4)
    p_values = []
    for _ in range(400):
        hard = random.normal(size=40)  # both find the same documents hard
        first, second = hard + random.normal(size=40), hard + random.normal(size=40)
        p_values.append(paired_difference(first, second, resamples=500).p_value)
    assert abs(np.mean(np.array(p_values) < 0.05) - 0.05) < 0.04
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_a_clear_difference_is_found_where_two_intervals_overlap() -> None:
    random = np.random.default_rng(5)
    hard = random.normal(size=200)
    first, second = hard, hard + 0.1 + 0.1 * random.normal(size=200)
    found = paired_difference(first, second)
    assert found.difference == pytest.approx(0.1, abs=0.02) and found.p_value == 1 / 10_001
    assert found.low > 0.07 and found.high < 0.13
    assert mean_interval(first).high > mean_interval(second).low
    back = paired_difference(second, first)
    assert back.difference == -found.difference and back.p_value == found.p_value
    assert (back.low, back.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_a_system_and_itself() -> None:
    values = np.random.default_rng(6).normal(size=20)
    assert paired_difference(values, values) == (0.0, 0.0, 0.0, 1.0)


def test_runs_are_averaged_per_document() -> None:
    assert over_runs([np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([0.5, 0.25])]).tolist() == [0.5, 0.75]
    # Three copies of a run are no three times as many documents.
    values = np.random.default_rng(7).normal(size=50)
    assert np.allclose(mean_interval(over_runs([values] * 3)), mean_interval(values))


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.5], "two documents"), ([], "two documents"), ([[0.1, 0.2]], "shape"), ([0.1, float("nan")], "finite")],
)
def test_what_has_no_interval(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(np.array(values))
    with pytest.raises(ValueError, match=message):
        sign_flip_p_value(np.array(values))


def test_different_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="the same documents"):
        paired_difference(np.zeros(3), np.zeros(4))

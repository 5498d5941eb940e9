"""Rules that orders are compared with, and the benchmarks of decoding."""

import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder.metrics import ordering_metrics, positions_of
from sentorder.order_search import best_orders
from sentorder.pair_rules import borda_orders, copeland_orders, topological_orders
from tests.conftest import REPOSITORY, Run

BENCHMARKS = REPOSITORY / "examples" / "benchmarks"
RULES = [borda_orders, copeland_orders, topological_orders]


def random_logits(documents: int, n: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(documents, n, n))
    return logits - logits.transpose(0, 2, 1)


def published_order(logits: np.ndarray) -> list[int]:
    """The procedure as it is described: delete the first edge that closes a cycle while there is one, then sort."""
    n = len(logits)
    edges = [[later for later in range(n) if logits[vertex, later] > 0] for vertex in range(n)]

    def closing_edge() -> tuple[int, int] | None:
        visited, on_path = set(), set()

        def visit(vertex: int) -> tuple[int, int] | None:
            visited.add(vertex)
            on_path.add(vertex)
            for later in edges[vertex]:
                if later in on_path:
                    return vertex, later
                if later not in visited and (found := visit(later)):
                    return found
            on_path.remove(vertex)
            return None

        return next((found for vertex in range(n) if vertex not in visited and (found := visit(vertex))), None)

    while found := closing_edge():
        edges[found[0]].remove(found[1])
    order: list[int] = []

    def place(vertex: int) -> None:
        if vertex in order or vertex in started:
            return
        started.add(vertex)
        for later in edges[vertex]:
            place(later)
        order.insert(0, vertex)

    started: set[int] = set()
    for vertex in range(n):
        place(vertex)
    return order


@given(st.integers(1, 9), st.booleans(), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_topological_orders_are_those_of_the_procedure(n: int, with_ties: bool, seed: int) -> None:
    logits = random_logits(4, n, seed)
    if with_ties:
        logits = np.trunc(logits)  # many pairs are even
    assert topological_orders(logits).tolist() == [published_order(matrix) for matrix in logits]


@pytest.mark.parametrize("rule", RULES)
@given(n=st.integers(0, 12), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_rules_give_the_order_on_which_all_pairs_agree(rule: Any, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    true = random.permuted(np.tile(np.arange(n), (3, 1)), axis=1)
    positions = np.argsort(true, axis=1)
    strength = np.abs(random_logits(3, n, seed)) + 5  # weaker ones Borda may overrule
    logits = np.where(positions[:, :, None] < positions[:, None, :], strength, -strength)
    kept = logits.copy()
    assert np.array_equal(rule(logits), true)
    assert np.array_equal(logits, kept)
    assert (np.sort(rule(random_logits(3, n, seed)), axis=1) == np.arange(n)).all()


def test_rules_by_hand() -> None:
    """0 before 1 before 2, weakly, and 2 before 0, strongly; 3 behind all but 2."""
    logits = np.zeros((1, 4, 4))
    for first, second, strength in [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 5.0), (0, 3, 3.0), (1, 3, 3.0), (3, 2, 1.0)]:
        logits[0, first, second], logits[0, second, first] = strength, -strength
    # Wins: 0 and 1 have two, 2 and 3 have one. Expected wins: 0 0.73 + 0.01 + 0.95, 1 0.27 + 0.73 + 0.95,
    # 2 0.27 + 0.99 + 0.27, 3 0.05 + 0.05 + 0.73.
    assert copeland_orders(logits).tolist() == [[0, 1, 2, 3]]
    assert borda_orders(logits).tolist() == [[1, 0, 2, 3]]
    # From 0 to 1 to 2, whose edge back to 0 is deleted; then 3, from 1, whose edge to 2 leads to what is complete.
    assert topological_orders(logits).tolist() == [[0, 1, 3, 2]]
    # Exact: 2 before 0 is worth more than the edges from 1 and 3 to 2 together.
    assert best_orders(logits).orders.tolist() == [[[1, 2, 0, 3]]]


@pytest.mark.parametrize("rule", [*RULES, lambda logits: best_orders(logits).orders[:, 0]])
@pytest.mark.parametrize("n", [5, 12])
def test_coin_flips_do_not_pay_under_numbers_by_chance(rule: Any, n: int) -> None:
    """Ties and cycles fall by slot number, so each decision is blind to the gold order only if the numbers are."""
    leak = runpy.run_path(str(BENCHMARKS / "gold_order_leak.py"))
    random = np.random.default_rng(n)
    decisions = leak["coin_flips"](3000, n, 0.5, random)
    labels = random.permuted(np.tile(np.arange(n), (3000, 1)), axis=1)
    each = np.arange(3000)[:, None, None]
    orders = np.take_along_axis(labels, rule(decisions[each, labels[:, :, None], labels[:, None, :]]), axis=1)
    figures = leak["figures_of"](orders)
    assert abs(figures["kendall_tau"]) < 0.03
    assert abs(figures["accuracy"] - 1 / n) < 0.02
    assert figures["perfect_match_ratio"] < 3 / math.factorial(5)


@pytest.mark.parametrize(("n", "tau", "accuracy"), [(5, 0.382, 0.368), (8, 0.553, 0.341), (12, 0.695, 0.319)])
def test_coin_flips_pay_in_the_published_evaluation(n: int, tau: float, accuracy: float) -> None:
    """The figures that the authors' own functions gave for such decisions, within four standard errors or so."""
    leak = runpy.run_path(str(BENCHMARKS / "gold_order_leak.py"))
    figures = leak["figures_of"](topological_orders(leak["coin_flips"](3000, n, 0.5, np.random.default_rng(n))))
    assert figures["kendall_tau"] == pytest.approx(tau, abs=0.03) and figures["kendall_tau"] > 0.3
    assert figures["accuracy"] == pytest.approx(accuracy, abs=0.02)


def test_the_figures_of_the_leak_are_those_of_the_metrics() -> None:
    leak = runpy.run_path(str(BENCHMARKS / "gold_order_leak.py"))
    random = np.random.default_rng(0)
    orders = np.stack([random.permutation(4) for _ in range(60)])
    metrics = ordering_metrics([positions_of(order) for order in orders], [range(4)] * 60)
    for name, value in leak["figures_of"](orders).items():
        assert value == pytest.approx(metrics[name]), name


@pytest.mark.slow
def test_gold_order_leak_writes_table_and_picture(run: Run, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gold_order_leak.py"), "--documents", "400"]
    result = run(*command, "--sentences", "4", "5", "-p", "0.5", "1", "--output_dir", "leak")
    assert result.returncode == 0, result.stderr
    table = (tmp_path / "leak" / "table.md").read_text(encoding="utf-8")
    assert result.stdout.startswith(table) and len(table.splitlines()) == 6
    values = json.loads((tmp_path / "leak" / "table.json").read_text(encoding="utf-8"))
    assert [(row["n"], row["p"]) for row in values["rows"]] == [(4, 0.5), (4, 1.0), (5, 0.5), (5, 1.0)]
    assert "numpy" in values["versions"]
    for row in values["rows"]:
        for figures in row["methods"].values():
            assert row["p"] < 1 or set(figures.values()) == {1.0}
    coins = values["rows"][2]["methods"]
    assert coins["topological, numbered by gold position"]["kendall_tau"] > 0.3
    assert abs(coins["topological, numbered by chance"]["kendall_tau"]) < 0.1
    assert (tmp_path / "leak" / "tau.png").read_bytes().startswith(b"\x89PNG")
    alone = run(*command, "--sentences", "5", "-p", "0.5")
    assert alone.stdout.splitlines()[2] == table.splitlines()[4]  # a row does not depend on the others
    wrong = run(*command, "-p", "1.5")
    assert wrong.returncode == 2 and "--accuracies between 0 and 1" in wrong.stderr


@pytest.mark.slow
def test_decoding_speed_tells_of_machine_and_versions(run: Run, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "decoding_speed.py"), "--documents", "2", "--repetitions", "2"]
    result = run(*command, "--sentences", "5", "8", "20", "--output", "new/speed.json")
    assert result.returncode == 0, result.stderr
    assert [line.split(" | ")[:2] for line in result.stdout.splitlines()[2:]] == [
        ["| 5", "exact"],
        ["| 8", "exact"],
        ["| 20", "local"],
    ]
    values = json.loads((tmp_path / "new" / "speed.json").read_text(encoding="utf-8"))
    assert [row["sentences"] for row in values["rows"]] == [5, 8, 20]
    assert values["machine"]["processor"] and values["machine"]["threads"] == 1
    assert {"python", "numpy", "sentorder"} <= values["versions"].keys()
    assert run(*command, "--sentences", "6").returncode == 2
    assert run(*command, "--repetitions", "0").returncode == 2

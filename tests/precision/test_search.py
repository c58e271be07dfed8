from __future__ import annotations

from collections.abc import Callable

import pytest

from samdec_export.precision.search import SearchResult, search

NODES = [f"n{index}" for index in range(64)]
Measure = Callable[[frozenset[str]], float]


def losses(culprits: dict[str, float], everywhere: float = 0.0) -> Measure:
    """Each culprit costs its own, every node costs the same besides; kept ones cost nothing."""

    def measure(kept: frozenset[str]) -> float:
        rest = sum(loss for node, loss in culprits.items() if node not in kept)
        return rest + everywhere * (len(NODES) - len(kept & set(NODES)))

    return measure


def run(measure: Measure, target: float, weights: dict[str, float] | None = None, budget: float = 1.0) -> SearchResult:
    return search(NODES, measure, target, weights=weights or {}, budget=budget)


def test_nothing_is_kept_where_the_target_is_met_already() -> None:
    found = run(losses({"n5": 0.1}), target=0.2)
    assert (found.units, found.measured, found.reached) == ((), 1, True)


@pytest.mark.parametrize("culprits", [["n0"], ["n63"], ["n17", "n40"], ["n3", "n4", "n5"], ["n1", "n20", "n41", "n62"]])
def test_culprits_are_found_in_few_trials(culprits: list[str]) -> None:
    found = run(losses(dict.fromkeys(culprits, 0.1)), target=0.05)
    assert found.reached
    assert set(culprits) <= found.nodes
    assert len(found.nodes) <= len(culprits) + 5
    assert found.measured < len(NODES)


def test_each_unit_says_what_it_buys() -> None:
    found = run(losses({"n10": 0.3, "n50": 0.1}), target=0.01)
    assert {unit.nodes: round(unit.without, 3) for unit in found.units} == {("n10",): 0.3, ("n50",): 0.1}
    assert found.before == pytest.approx(0.4)
    assert found.after == pytest.approx(0)


def test_what_turns_out_not_to_be_needed_is_given_back() -> None:
    def measure(kept: frozenset[str]) -> float:  # n9 helps a little, n30 and n31 together do away with all
        return 0.0 if {"n30", "n31"} <= kept else 0.9 if "n9" in kept else 1.0 - 0.01 * len(kept & {"n30", "n31"})

    found = run(measure, target=0.5)
    assert found.reached
    assert "n9" not in found.nodes


def test_what_costs_too_much_is_not_kept() -> None:
    found = run(losses({"n10": 0.3, "n50": 0.1}), target=0.15, weights={"n10": 0.5}, budget=0.1)
    assert not found.reached
    assert "n10" not in found.nodes
    assert found.after == pytest.approx(0.3)


def test_a_loss_that_is_everywhere_cannot_be_bought_off() -> None:
    weights = dict.fromkeys(NODES, 1 / len(NODES))
    found = run(losses({}, everywhere=0.01), target=0.1, weights=weights, budget=0.1)
    assert not found.reached
    assert len(found.nodes) <= 0.1 * len(NODES)

from __future__ import annotations

import statistics
from typing import Any

import pytest

from xaytune.search.searcher import Outcome, Searcher
from xaytune.sweep.spec import SweepSpec

SPACE = {
    "lr": {"loguniform": [1e-4, 1]},
    "width": {"lograndint": [8, 129]},
    "depth": {"randint": [1, 4]},
    "dropout": {"quniform": [0, 0.5, 0.1]},
    "layers": {"choice": [[8, 8], [16]]},
    "optimizer": {"choice": ["sgd", "adamw"]},
    "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
}
ADAPTIVE = ["random", "qmc", "tpe", "gp", "cmaes"]


def spec(algorithm: str, space: dict[str, Any] | None = None, **options: Any) -> SweepSpec:
    search = {"algorithm": algorithm, **options}
    return SweepSpec.parse(
        {"recipe": "a:b", "metric": "m", "mode": "max", "space": space or SPACE, "search": search}
    )


def suggestions(searcher: Searcher, count: int) -> list[dict[str, Any]]:
    """Asks and tells in turn; trials do the better the nearer the learning rate is to 0.01."""
    configs = []
    for _ in range(count):
        suggestion = searcher.ask()
        value = -abs(suggestion.config["lr"] - 0.01)
        status: Any = "stopped" if suggestion.number % 3 == 0 else "completed"
        searcher.tell(suggestion.number, Outcome(status, value, {1: value}))
        configs.append(suggestion.config)
    return configs


@pytest.mark.parametrize("algorithm", ADAPTIVE)
def test_suggestions_lie_in_the_space_and_honour_its_conditions(algorithm: str) -> None:
    for config in suggestions(Searcher(spec(algorithm)), 25):
        assert 1e-4 <= config["lr"] <= 1
        assert 8 <= config["width"] <= 128
        assert isinstance(config["width"], int)
        assert config["depth"] in (1, 2, 3)
        assert any(abs(config["dropout"] - q / 10) < 1e-9 for q in range(6))
        assert config["layers"] in ([8, 8], [16])
        assert ("momentum" in config) == (config["optimizer"] == "sgd")


@pytest.mark.parametrize("algorithm", ADAPTIVE)
def test_the_same_seed_and_outcomes_give_the_same_suggestions(algorithm: str) -> None:
    first, again = (suggestions(Searcher(spec(algorithm, seed=7)), 20) for _ in range(2))
    assert first == again
    assert first != suggestions(Searcher(spec(algorithm, seed=8)), 20)


@pytest.mark.parametrize("algorithm", ADAPTIVE)
def test_parallel_asks_do_not_propose_the_same_point(algorithm: str) -> None:
    searcher = Searcher(spec(algorithm))
    suggestions(searcher, 12)
    configs = [searcher.ask().config for _ in range(8)]
    assert all(config not in configs[:index] for index, config in enumerate(configs))


def test_parallel_asks_of_a_small_space_take_each_point_before_one_twice() -> None:
    searcher = Searcher(spec("random", {"a": {"choice": [1, 2, 3]}}))
    assert sorted(searcher.ask().config["a"] for _ in range(3)) == [1, 2, 3]
    assert searcher.ask().config["a"] in (1, 2, 3)  # there is no other: a point comes again


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "cmaes"])
def test_an_adaptive_search_learns_what_does_well(algorithm: str) -> None:
    space = {"lr": {"uniform": [0, 1]}}
    configs = suggestions(Searcher(spec(algorithm, space)), 50)
    late = [abs(config["lr"] - 0.01) for config in configs[-20:]]
    assert statistics.median(late) < 0.2  # a draw at random is 0.49 away in the median


def test_a_grid_search_takes_every_combination_once() -> None:
    space = {
        "a": {"choice": ["x", "y"]},
        "b": {"randint": [0, 2]},
        "c": {"quniform": [0, 1, 0.5], "when": {"a": "x"}},
    }
    sweep = spec("grid", space)
    searcher = Searcher(sweep)
    configs = [searcher.ask().config for _ in range(sweep.num_trials or 0)]
    assert len(configs) == 8
    assert all(config not in configs[:index] for index, config in enumerate(configs))
    assert sum(config["a"] == "y" for config in configs) == 2


def test_gridded_parameters_repeat_while_the_others_are_drawn_anew() -> None:
    searcher = Searcher(spec("tpe", {"kind": {"grid": ["a", "b"]}, "lr": {"uniform": [0, 1]}}))
    configs = suggestions(searcher, 6)
    assert [config["kind"] for config in configs] == ["a", "b"] * 3
    assert len({config["lr"] for config in configs}) == 6


def test_stopped_trials_count_as_pruned_with_their_values_and_failed_ones_as_failed() -> None:
    searcher = Searcher(spec("random"))
    for outcome in (
        Outcome("completed", 0.9, {1: 0.5, 3: 0.8}),
        Outcome("stopped", 0.5, {1: 0.5}),
        Outcome("stopped"),
        Outcome("failed"),
        Outcome("completed"),
    ):
        searcher.tell(searcher.ask().number, outcome)
    told = [(t.state.name, t.value, t.intermediate_values) for t in searcher._study.trials]
    assert told == [
        ("COMPLETE", 0.9, {1: 0.5, 3: 0.8}),
        ("PRUNED", 0.5, {1: 0.5}),
        ("PRUNED", None, {}),
        ("FAIL", None, {}),
        ("FAIL", None, {}),
    ]


@pytest.mark.parametrize("algorithm", ADAPTIVE)
def test_a_searcher_that_is_rebuilt_from_what_was_asked_and_told_goes_on_the_same(algorithm: str) -> None:
    """Trials overlap, as they do when several run at once."""

    def go_on(searcher: Searcher, first: int, last: int, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
        configs = []
        for number in range(first, last):
            suggestion = searcher.ask_again(known[number]) if number < len(known) else searcher.ask()
            configs.append(suggestion.config)
            if number >= 2:
                value = -abs(number - 7.0)
                searcher.tell(number - 2, Outcome("stopped" if number % 3 else "completed", value, {1: value}))
        return configs

    whole = go_on(Searcher(spec(algorithm, seed=5)), 0, 16, [])
    rebuilt = Searcher(spec(algorithm, seed=5))
    assert go_on(rebuilt, 0, 9, whole[:9]) == whole[:9]
    assert go_on(rebuilt, 9, 16, []) == whole[9:]


def test_what_was_tried_stands_where_a_sampler_would_draw_otherwise_now() -> None:
    searcher = Searcher(spec("tpe", seed=1))
    tried = suggestions(Searcher(spec("random", seed=2)), 1)[0]
    assert searcher.ask_again(tried).config == tried
    assert searcher.ask().number == 1


def test_an_infeasible_trial_is_the_worst_to_the_sampler() -> None:
    searcher = Searcher(spec("tpe", seed=1, n_startup_trials=4))
    for _ in range(12):
        suggestion = searcher.ask()
        large = suggestion.config["width"] > 32
        searcher.tell(suggestion.number, Outcome("infeasible") if large else Outcome("completed", 1.0))
    widths = [searcher.ask().config["width"] for _ in range(8)]
    assert sum(width > 32 for width in widths) <= 2

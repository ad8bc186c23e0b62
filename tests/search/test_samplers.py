"""What samplers are told, and how gridded parameters and earlier choices of other samplers go with them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.search.runs import spec_of
from xaytune.search.build import method_for
from xaytune.search.method import End, NewTrial, Result, SearchMethod

ADAPTIVE = ["tpe", "gp", "cmaes"]


def new(method: SearchMethod) -> dict[str, Any]:
    answer = method.next()
    assert isinstance(answer, NewTrial)
    return answer.config


@pytest.mark.parametrize("algorithm", ["random", "qmc", "tpe"])
def test_gridded_parameters_repeat_while_the_others_are_drawn_anew(algorithm: str) -> None:
    space = {"kind": {"grid": ["a", "b"]}, "lr": {"uniform": [0, 1]}}
    method = method_for(spec_of(search=algorithm, space=space, num_samples=3))
    configs = [new(method) for _ in range(6)]
    assert [config["kind"] for config in configs] == ["a", "b"] * 3
    assert len({config["lr"] for config in configs}) == 6
    assert not isinstance(method.next(), NewTrial)


@pytest.mark.parametrize("algorithm", ["random", *ADAPTIVE])
def test_a_configuration_of_a_journal_stands_where_another_would_be_drawn_now(algorithm: str) -> None:
    search = {"algorithm": algorithm, "seed": 1}
    method, again = (method_for(spec_of(search=search, num_samples=20)) for _ in range(2))
    configs = [new(method) for _ in range(4)]
    for config in ({"x": 0.123}, *configs[1:]):
        again.adopt(config)
    for trial, config in enumerate(({"x": 0.123}, *configs[1:])):
        again.on_end(trial, End("completed", -abs(config["x"] - 0.3)))
    assert new(again) not in configs


@pytest.mark.parametrize("algorithm", ["qmc", *ADAPTIVE])
def test_steps_of_a_rounded_fraction_are_drawn_up_to_the_last_and_nobody_is_warned(
    algorithm: str, recwarn: pytest.WarningsRecorder
) -> None:
    space = {"x": {"uniform": [0, 1]}, "share": {"quniform": [0, 2, 0.6666666666666667]}}
    points = [{"x": 0.5, "share": 2.0}]
    method = method_for(spec_of(search=algorithm, space=space, num_samples=12, points_to_evaluate=points))
    shares = []
    for trial in range(12):
        config = new(method)
        shares.append(config["share"])
        method.on_end(trial, End("completed", config["share"] - abs(config["x"] - 0.5)))
    assert 2.0 in shares[1:]
    assert not [str(warning.message) for warning in recwarn if "range" in str(warning.message)]


@pytest.mark.parametrize("ending", ["infeasible", "diverged", "diverged later"])
@pytest.mark.parametrize("algorithm", ADAPTIVE)
def test_what_diverges_or_can_never_be_trained_is_the_worst_to_samplers_that_learn(
    algorithm: str, ending: str
) -> None:
    search = {"algorithm": algorithm, "seed": 1, "n_startup_trials": 5}
    space = {"lr": {"loguniform": [1e-4, 10]}}
    method = method_for(spec_of("asha", search, space=space, num_samples=20))
    rates = []
    for trial in range(20):
        rates.append(new(method)["lr"])
        value = -abs(math.log10(rates[-1] / 0.1))
        if rates[-1] <= 1:
            method.on_end(trial, End("completed", value))
        elif ending == "infeasible":
            method.on_end(trial, End("infeasible"))
        else:
            if ending == "diverged later":
                method.on_result(trial, Result(1, 0.0))
            method.on_result(trial, Result(3, None))
            method.on_end(trial, End("stopped"))
    assert sum(rate > 1 for rate in rates[-8:]) <= 3


@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
def test_tpe_models_parameters_together_only_where_no_scheduler_stops_trials(scheduler: str) -> None:
    """As if it had been asked for: the same configurations are drawn."""

    def configs(**options: Any) -> list[dict[str, Any]]:
        search = {"algorithm": "tpe", "n_startup_trials": 4, **options}
        space = {"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}}
        method = method_for(spec_of(scheduler, search, space=space, num_samples=12))
        drawn = []
        for trial in range(12):
            drawn.append(new(method))
            value = -abs(drawn[-1]["x"] - drawn[-1]["y"])
            method.on_result(trial, Result(1, value))
            method.on_end(trial, End("completed", value))
        return drawn

    together = scheduler == "fifo"
    assert configs() == configs(multivariate=together)
    assert configs() != configs(multivariate=not together)


@pytest.mark.parametrize("algorithm", ["gp", "cmaes"])
def test_trials_that_are_stopped_count_to_samplers_that_read_complete_ones_only(algorithm: str) -> None:
    options = {"algorithm": algorithm, "n_startup_trials": 4, "seed": 2}
    stopping, failing = (method_for(spec_of("asha", options, num_samples=12)) for _ in range(2))
    drawn: dict[SearchMethod, list[float]] = {stopping: [], failing: []}
    for trial in range(8):
        for method, configs in drawn.items():
            configs.append(new(method)["x"])
            value = -((configs[-1] - 0.3) ** 2)
            method.on_result(trial, Result(1, value))
            method.on_end(trial, End("stopped", value) if method is stopping else End("failed"))
    assert drawn[stopping][:4] == drawn[failing][:4]
    assert drawn[stopping][5:] != drawn[failing][5:]


@pytest.mark.parametrize("algorithm", ADAPTIVE)
def test_after_a_fall_back_no_draw_of_the_start_comes_again(algorithm: str) -> None:
    options = {"algorithm": algorithm, "n_startup_trials": 10}
    space = {"x": {"uniform": [0, 1]}, "kind": {"choice": ["a", "b"]}}

    def configs() -> list[dict[str, Any]]:
        method = method_for(spec_of(search=options, space=space, num_samples=24))
        drawn = []
        for trial in range(24):
            if trial == 11:
                method.fall_back("it takes too long")
            drawn.append(new(method))
            method.on_end(trial, End("completed", drawn[-1]["x"]))
        return drawn

    drawn = configs()
    assert len({config["x"] for config in drawn}) == 24
    assert configs() == drawn


@pytest.mark.parametrize("algorithm", ["random", "qmc", "tpe", "cmaes"])
def test_no_configuration_comes_twice_where_some_have_nothing_that_varies(algorithm: str) -> None:
    space = {"kind": {"choice": ["linear", "mlp"]}, "lr": {"uniform": [0, 1], "when": {"kind": "mlp"}}}
    method = method_for(spec_of(search=algorithm, space=space, num_samples=30))
    configs = []
    for trial in range(30):
        configs.append(new(method))
        method.on_end(trial, End("completed", configs[-1].get("lr", 0.9)))
    assert configs.count({"kind": "linear"}) == 1
    assert not any(config in configs[:index] for index, config in enumerate(configs))

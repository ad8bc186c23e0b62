from __future__ import annotations

import contextlib
import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from xaytune.errors import SpecError
from xaytune.sweep.algorithms import AshaSpec, TpeSpec
from xaytune.sweep.loader import load_spec, parse_assignments
from xaytune.sweep.spec import SweepSpec

VALID: dict[str, Any] = {
    "recipe": "sweeps.digits:train",
    "metric": "eval_accuracy",
    "mode": "max",
    "space": {"lr": {"loguniform": [1e-4, 0.3]}},
}


def refused(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(SpecError) as raised:
        load_spec(file)
    return [str(problem).removeprefix(f"{file.parent}/") for problem in raised.value.problems]


@pytest.mark.parametrize("name", ["digits", "digits_cnn", "digits_fused", "charlm"])
def test_the_sweeps_of_the_project_are_valid(name: str) -> None:
    assert (load_spec(f"sweeps/{name}.yaml").num_trials or 0) >= 16


def test_what_is_left_out_has_the_documented_defaults() -> None:
    spec = SweepSpec.parse(VALID)
    assert (spec.search.algorithm, spec.search.seed, spec.scheduler.algorithm) == ("random", 0, "fifo")
    assert (spec.num_samples, spec.max_concurrent_trials, spec.resources_per_trial) == (1, None, {"cpu": 1})


def test_yaml_is_read_as_version_1_2(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        "recipe: a:b\nmetric: m\nmode: min\nspace: {lr: {loguniform: [1e-4, 3e-1]}, flag: {choice: [no, true]}}\n"
    )
    space = load_spec(file).space
    assert space.raw == {"lr": {"loguniform": [0.0001, 0.3]}, "flag": {"choice": ["no", True]}}
    assert all(type(bound) is float for bound in space.raw["lr"]["loguniform"])


def test_every_problem_of_a_file_is_named_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    text = """\
recipe: digits
metrc: eval_accuracy
mode: maximum
space:
  lr: {loguniform: [0, 1]}
  momentum: {unifrom: [0, 1], when: {optimzer: sgd}}
scheduler: {algorithm: asha, max_tt: 3,
  grace_period: 0}
search: {algorithm: tpee}
num_samples: many
callbacks: [a:b, 3]
"""
    assert refused(tmp_path / "s.yaml", text) == [
        "s.yaml metric: is required",
        "s.yaml:1 recipe: must be 'module:function', or a function (got 'digits')",
        "s.yaml:2 metrc: unknown option 'metrc'; did you mean 'metric'?",
        "s.yaml:3 mode: must be 'max' or 'min' (got 'maximum')",
        "s.yaml:5 space.lr: loguniform: low must be above 0 on a logarithmic scale (got 0)",
        "s.yaml:6 space.momentum.unifrom: unknown domain 'unifrom'; did you mean 'uniform'?",
        "s.yaml:7 scheduler.max_tt: unknown option 'max_tt'; did you mean 'max_t'?",
        "s.yaml:8 scheduler.grace_period: must be greater than or equal to 1 (got 0)",
        "s.yaml:9 search.algorithm: unknown algorithm 'tpee'; did you mean 'tpe'?",
        "s.yaml:10 num_samples: must be a valid integer (got 'many')",
        "s.yaml:11 callbacks.1: must be 'module:function', or a function (got 3)",
    ]


def test_a_problem_of_what_was_merged_into_a_mapping_is_told_there_and_where_it_is_written(tmp_path: Path) -> None:
    text = """\
recipe: a:b
metric: m
mode: max
space:
  sgd: &sgd
    lr: {loguniform: [0, 1]}
  adam:
    <<: *sgd
    beta: {uniform: [0, 1]}
  x: &x {unifrom: [0, 1]}
  y:
    <<: *x
"""
    assert refused(tmp_path / "s.yaml", text) == [
        "s.yaml:6 space.sgd.lr: loguniform: low must be above 0 on a logarithmic scale (got 0)",
        "s.yaml:7 space.adam.lr: loguniform: low must be above 0 on a logarithmic scale (got 0)",
        "s.yaml:10 space.x.unifrom: unknown domain 'unifrom'; did you mean 'uniform'?",
        "s.yaml:11 space.y.unifrom: unknown domain 'unifrom'; did you mean 'uniform'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "s.yaml:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\na: 2\n", 's.yaml:2: not valid YAML: found duplicate key "a" with value "2" (original value: "1")'),
        ("", "s.yaml: a spec must map options to values (got None)"),
        ("- 1\n", "s.yaml: a spec must map options to values (got [1])"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path / "s.yaml", text)[0].startswith(message)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.yaml: there is no such file"):
        load_spec(tmp_path / "missing.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path)


def test_set_replaces_values_of_the_file_and_reads_them_as_yaml() -> None:
    spec = load_spec(
        "sweeps/digits.yaml",
        parse_assignments(
            ("search.algorithm=tpe", "num_samples=3", "space.hidden=64", "space.lr={uniform: [0, 1]}")
        ),
    )
    assert isinstance(spec.search, TpeSpec)
    assert spec.num_samples == 3
    assert spec.space.constants["hidden"] == 64
    assert spec.space.raw["lr"] == {"uniform": [0, 1]}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lr", r"--set takes a.b=VALUE \(got 'lr'\)"),
        ("=1", r"--set takes a.b=VALUE \(got '=1'\)"),
        ("a=[1", "--set a: the value is not valid YAML"),
    ],
)
def test_an_assignment_that_is_none_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_assignments((assignment,))


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("scheduler: asha", "scheduler.max_t", 9),
        ("search: tpe", "search.seed", 3),
        ("search:", "search.seed", 3),
        ("budget: 2h", "budget.epochs", 5),
        ("failures: 2", "failures.retries", 1),
    ],
)
def test_set_reaches_an_option_of_what_the_file_writes_in_short(
    tmp_path: Path, written: str, name: str, value: int
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"{{recipe: 'a:b', metric: m, mode: max, space: {{x: {{uniform: [0, 1]}}}}, {written}}}")
    option, _, inner = name.partition(".")
    assert getattr(getattr(load_spec(file, {name: value}), option), inner) == value


def test_setting_what_cannot_hold_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match=r"--set metric\.name\.x"):
        load_spec("sweeps/digits.yaml", {"metric.name.x": 1})


def test_grid_search_needs_values_that_can_be_counted() -> None:
    with pytest.raises(SpecError, match=r"space\.lr: grid search needs values that can be counted"):
        SweepSpec.parse({**VALID, "search": {"algorithm": "grid"}})


def test_a_grid_multiplies_the_samples() -> None:
    space = {"a": {"grid": [1, 2, 3]}, "b": {"grid": [1, 2]}, "lr": {"uniform": [0, 1]}}
    assert SweepSpec.parse({**VALID, "space": space, "num_samples": 5}).num_trials == 30


@pytest.mark.parametrize(
    ("options", "rungs"),
    [
        ({"max_t": 27, "reduction_factor": 3}, (1, 3, 9, 27)),
        ({"max_t": 20, "reduction_factor": 3}, (1, 3, 9, 20)),
        ({"max_t": 10, "grace_period": 10}, (10,)),
        ({"max_t": 16, "grace_period": 2, "reduction_factor": 2.5}, (2, 5, 13, 16)),
        ({"max_t": 243, "reduction_factor": 3}, (1, 3, 9, 27, 81, 243)),
    ],
)
def test_the_rungs_of_asha(options: dict[str, Any], rungs: tuple[int, ...]) -> None:
    assert AshaSpec(algorithm="asha", **options).rungs == rungs


def test_a_first_rung_beyond_max_t_is_refused() -> None:
    with pytest.raises(SpecError, match="grace_period must be at most max_t"):
        SweepSpec.parse({**VALID, "scheduler": {"algorithm": "asha", "grace_period": 5, "max_t": 3}})


def test_a_spec_as_plain_data_parses_to_the_same_spec() -> None:
    spec = load_spec("sweeps/charlm.yaml")
    assert SweepSpec.parse(spec.plain()).plain() == spec.plain()


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in items for path in paths(item, (*here, key)))]


DIGITS = YAML(typ="safe").load(Path("sweeps/digits.yaml").read_text())
junk: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]) | st.just({"a": [1]})
)


@given(st.sampled_from(paths(DIGITS)[1:]), junk, st.sampled_from(["replace", "remove", "rename"]))
def test_a_mutated_spec_is_valid_or_refused_never_a_traceback(path: tuple[Any, ...], value: Any, how: str) -> None:
    spec = copy.deepcopy(DIGITS)
    parent = spec
    for key in path[:-1]:
        parent = parent[key]
    if how == "replace":
        parent[path[-1]] = value
    else:
        removed = parent.pop(path[-1])
        if how == "rename" and isinstance(parent, dict):
            parent[str(value)] = removed
    with contextlib.suppress(SpecError):
        assert SweepSpec.parse(spec).num_trials != 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(90, 90), (1.5, 1.5), ("45s", 45), ("15m", 900), ("1h30m", 5400), ("2 h", 7200), ("1d", 86400)],
)
def test_a_budget_of_time_is_seconds_or_a_duration(written: Any, seconds: float) -> None:
    assert SweepSpec.parse({**VALID, "budget": {"time": written}}).budget.time == seconds


@pytest.mark.parametrize("written", ["soon", "2 hours", "", -1, 0, "0s", True])
def test_what_is_no_duration_is_refused(written: Any) -> None:
    with pytest.raises(SpecError, match=r"budget\.time: "):
        SweepSpec.parse({**VALID, "budget": {"time": written}})


def test_an_unknown_option_of_an_inner_mapping_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"failures\.retry: unknown option 'retry'; did you mean 'retries'"):
        SweepSpec.parse({**VALID, "failures": {"retry": 1}})


BETA = {"kind": {"choice": ["sgd", "adam"]}, "beta": {"uniform": [0, 1], "when": {"kind": "sgd"}}}


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"algorithm": "pbt", "hyperparam_mutations": ["rl"]}, "the space has no parameter 'rl'"),
        ({"algorithm": "pbt", "hyperparam_mutations": ["beta"]}, "'beta' does not always exist"),
        ({"algorithm": "pb2"}, "pb2 perturbs floats only"),
    ],
)
def test_a_population_that_cannot_be_perturbed_is_refused(scheduler: dict[str, Any], message: str) -> None:
    space = {"lr": {"loguniform": [1e-4, 1]}, "layers": {"choice": [1, 2]}, **BETA}
    with pytest.raises(SpecError, match=message):
        SweepSpec.parse({**VALID, "space": space, "scheduler": scheduler})


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_population_of_which_nothing_always_exists_is_refused(scheduler: str) -> None:
    with pytest.raises(SpecError, match="nothing can be perturbed: no parameter of the space always exists"):
        SweepSpec.parse({**VALID, "space": {"kind": "sgd", "beta": BETA["beta"]}, "scheduler": scheduler})


SHORT = [
    ({"scheduler": "asha"}, {"scheduler": {"algorithm": "asha"}}),
    ({"search": "tpe"}, {"search": {"algorithm": "tpe"}}),
    ({"budget": "2h"}, {"budget": {"time": 7200}}),
    ({"failures": 2}, {"failures": {"retries": 2}}),
    ({"callbacks": "a:b"}, {"callbacks": ["a:b"]}),
    ({"trackers": "tensorboard"}, {"trackers": ["tensorboard"]}),
    ({"trackers": ("tensorboard", "wandb")}, {"trackers": ["tensorboard", "wandb"]}),
    ({"warm_start": "runs/a"}, {"warm_start": ["runs/a"]}),
    ({"max_concurrent_trials": None, "num_samples": None, "search": None}, {}),
]


@pytest.mark.parametrize(("short", "whole"), SHORT)
def test_what_is_written_in_short_is_what_it_stands_for(short: dict[str, Any], whole: dict[str, Any]) -> None:
    assert SweepSpec.parse({**VALID, **short}).plain() == SweepSpec.parse({**VALID, **whole}).plain()


def test_a_callback_alone_is_a_list_of_it() -> None:
    assert SweepSpec.parse({**VALID, "callbacks": refused}).callbacks == [refused]


class Scheduler:
    """An object of some other library."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": Scheduler()}, "{algorithm: asha, max_t: 27} (got a Scheduler)"),
        ({"scheduler": "ash"}, "scheduler.algorithm: unknown algorithm 'ash'; did you mean 'asha'?"),
        ({"search": 3}, "search: must be a name, such as tpe, or its options, {algorithm: tpe, seed: 1} (got 3)"),
        ({"space": [1]}, "space: must map parameters to domains or constants (got [1])"),
        ({"resources_per_trial": "cpu"}, "resources_per_trial: must be {cpu: 1, gpu: 1} (got 'cpu')"),
        ({"resources_per_trial": {"cpus": 1}}, "did you mean 'cpu'? (got 'cpus')"),
        ({"resources_per_trial": [{"cpu": 1}, {"GPU": 1}]}, "did you mean 'gpu'? (got 'GPU')"),
        ({"resources_per_trial": {"gpu": math.inf}}, "resources_per_trial.gpu: must be a finite number (got inf)"),
        ({"scheduler": {"algorithm": "a:B", "f": lambda: 1}}, "cannot be imported again: give a name"),
        ({"trackers": ["wandb", {"tracker": "a:B", "f": [1j]}]}, "trackers.1.f.0: 1j (a complex) cannot be kept"),
        ({"budget": 7200}, "budget: must be {time: 2h, epochs: 500}, or a time such as 2h (got 7200)"),
        ({"budget": "soon"}, "budget.time: must be seconds, or a duration like '90s', '15m', '1h30m'"),
        ({"checkpoint_config": 3}, "must be {num_to_keep: 10} (got 3)"),
        ({"callbacks": 3}, "callbacks: must be a list (got 3)"),
        ({"mode": "maximize"}, "mode: must be 'max' or 'min' (got 'maximize')"),
        ({"stop": {"training_iteration": 3}}, "stop: unknown option 'stop'; here it is the recipe's own"),
        ({"n_trials": 3}, "n_trials: unknown option 'n_trials'; here it is num_samples"),
        ({"n_workers": 3}, "n_workers: unknown option 'n_workers'; here it is max_concurrent_trials"),
        ({"tune_config": 3}, "tune_config: unknown option 'tune_config'; here it is not nested: give metric"),
        ({"num_to_keep": 3}, "num_to_keep: unknown option 'num_to_keep'; here it is checkpoint_config"),
        ({"method": "bayes"}, "method: unknown option 'method'; here it is search"),
        ({"parameters": {}}, "parameters: unknown option 'parameters'; here it is space"),
        ({"storage": "x"}, "storage: unknown option 'storage'; here it is an argument of run(), or --storage"),
        ({"seed": 1}, "seed: unknown option 'seed'; here it is search: {seed: 1}"),
        ({"max_t": 9}, "max_t: unknown option 'max_t'; here it is an option of a scheduler"),
        ({"search": "bayes"}, "search.algorithm: unknown algorithm 'bayes'; here it is gp or tpe"),
        ({"recipe": "sweeps/digits.py"}, "(got 'sweeps/digits.py'): write sweeps.digits:train"),
        ({"setup": "load"}, "setup: must be 'module:function', or a function (got 'load')"),
        ({"num_samples": 0}, "num_samples: must be at least 1, or -1 to draw until the budget is spent (got 0)"),
        ({"num_samples": -1}, "give one, {time: 2h} or {epochs: 500}"),
        ({"points_to_evaluate": {"lr": 0.1}}, "must be a list of configurations, such as [{lr: 0.1}]"),
        ({"points_to_evaluate": [{"lr": 0.1}, {"lr": 3}]}, "points_to_evaluate.1.lr: must be from 0.0001 to 0.3"),
        ({"points_to_evaluate": [{"lr": 0.1}, {"lr": 0.2}]}, "are 2, of 1 trials: raise num_samples"),
        ({"scheduler": "pbt"}, "num_samples: a population has at least 2 trials"),
        ({"scheduler": "curves", "space": {"a": {"b": {"grid": [1, 2]}}}}, "a.b: curves draws the values itself"),
        ({"space": {f"p{i}": {"grid": [0, 1, 2, 3]} for i in range(40)}}, "space: the grid has 1.2e+24 points"),
        ({"stop_grace_s": "1m"}, "stop_grace_s: must be a valid number (got '1m')"),
    ],
)  # fmt: skip
def test_what_users_of_other_libraries_write_is_refused_with_the_form_that_is_meant(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as raised:
        SweepSpec.parse({**VALID, **options})
    assert message in str(raised.value)


def test_a_sweep_without_a_number_of_trials_draws_until_its_budget_is_spent() -> None:
    assert SweepSpec.parse({**VALID, "num_samples": -1, "budget": "2h"}).num_trials is None


def test_points_to_evaluate_are_configurations_as_the_space_builds_them() -> None:
    space = {"opt": {"lr": {"uniform": [0, 1]}, "name": "sgd"}, "size": {"choice": [(8, 8), (4,)]}}
    points = [{"opt.lr": 1, "size": (8, 8)}, {"opt": {"lr": 0.5}, "size": {"$tuple": [4]}}]
    spec = SweepSpec.parse({**VALID, "space": space, "points_to_evaluate": points, "num_samples": 2})
    assert spec.points_to_evaluate == [
        {"opt": {"lr": 1.0, "name": "sgd"}, "size": (8, 8)},
        {"opt": {"lr": 0.5, "name": "sgd"}, "size": (4,)},
    ]
    again = SweepSpec.parse(json.loads(json.dumps(spec.plain(), allow_nan=False)))
    assert again.points_to_evaluate == spec.points_to_evaluate


def test_a_spec_with_values_that_json_has_no_word_for_comes_back_from_its_journal() -> None:
    space = {
        "clip": {"choice": [float("inf"), 1.0]},
        "act": {"choice": [Scheduler, dict]},
        "x": (1, {"choice": [2]}),
    }
    spec = SweepSpec.parse({**VALID, "space": space, "stop_grace_s": float("inf"), "setup": "a:b"})
    again = SweepSpec.parse(json.loads(json.dumps(spec.plain(), allow_nan=False)))
    assert again.plain() == spec.plain()
    assert again.space.parameters == spec.space.parameters
    assert again.stop_grace_s == float("inf")


def test_set_reaches_a_name_that_the_file_writes_with_dots(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("recipe: a:b\nmetric: m\nmode: max\nspace:\n  opt.lr: {uniform: [0, 1]}\n  opt.n: 1\n")
    assert load_spec(file, {"space.opt.n": {"choice": [1, 2]}}).space.raw["opt.n"] == {"choice": [1, 2]}


def test_a_date_of_yaml_is_text() -> None:
    spec = load_spec("sweeps/digits.yaml", parse_assignments(("space.since=2024-01-31",)))
    assert spec.space.constants["since"] == "2024-01-31"

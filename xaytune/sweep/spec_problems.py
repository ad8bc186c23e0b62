"""What is wrong with a spec, in words: what pydantic found, and options that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic_core import ErrorDetails

from xaytune.errors import Problem, ProblemPath, nearest
from xaytune.sweep.algorithms import ALGORITHMS, CurvesSpec, OpenOptions, Pb2Spec, PbtSpec
from xaytune.sweep.domains import Float
from xaytune.sweep.values import problems

if TYPE_CHECKING:
    from xaytune.sweep.spec import SweepSpec

# How pydantic's locations tell which member of a union was chosen.
_TAGS = {*ALGORITHMS, "built-in", "extension", "bundle", "bundles"}
# What users of Ray Tune, Optuna and W&B write first, and what it is here.
_ELSEWHERE = {
    "config": "space",
    "config_space": "space",
    "direction": "mode, 'max' or 'min'",
    "early_terminate": "scheduler",
    "fail_fast": "not needed: trials that raise before any has trained a step end the sweep",
    "goal": "mode, 'max' or 'min'",
    "grace_period": "an option of a scheduler: {algorithm: asha, grace_period: 1, max_t: 27}",
    "listener": "an argument of run()",
    "max_concurrent": "max_concurrent_trials",
    "max_failures": "failures: {retries: 3}",
    "max_t": "an option of a scheduler: {algorithm: asha, max_t: 27}",
    "max_wallclock_time": "budget: {time: 2h}",
    "method": "search, such as random or tpe",
    "n_jobs": "max_concurrent_trials",
    "n_trials": "num_samples",
    "n_workers": "max_concurrent_trials",
    "name": "an argument of run(), or --name of the command",
    "num_to_keep": "checkpoint_config: {num_to_keep: 10}",
    "objective": "recipe",
    "param_space": "space",
    "parameters": "space",
    "program": "command, such as python train.py --lr {lr}, or recipe",
    "project": "WANDB_PROJECT in the environment",
    "pruner": "scheduler",
    "resources": "resources_per_trial",
    "run_cap": "num_samples",
    "run_config": "the arguments of run(): name, storage and listener",
    "sampler": "search",
    "search_alg": "search",
    "seed": "search: {seed: 1}",
    "stop": "the recipe's own number of epochs, or max_t of a scheduler such as asha",
    "storage": "an argument of run(), or --storage of the command",
    "storage_path": "storage, an argument of run(), or --storage of the command",
    "study_name": "name, an argument of run(), or --name of the command",
    "time_budget_s": "budget: {time: 2h}",
    "timeout": "budget: {time: 2h}",
    "trainable": "recipe",
    "tune_config": "not nested: give metric, mode, num_samples, search and scheduler by themselves",
    "verbose": "the listener of run(), such as a LiveView",
}
_ALGORITHMS_ELSEWHERE = {"bayes": "gp or tpe", "hyperopt": "tpe", "optuna": "tpe", "sobol": "qmc"}
_FORMS = {
    "budget": "{time: 2h, epochs: 500}, or a time such as 2h",
    "checkpoint_config": "{num_to_keep: 10}",
    "failures": "{retries: 3}",
    "resources_per_trial": "{cpu: 1, gpu: 1}",
    "scheduler": "a name, such as asha, or its options, {algorithm: asha, max_t: 27}",
    "search": "a name, such as tpe, or its options, {algorithm: tpe, seed: 1}",
}
_MOST_SHOWN = 200
# More points than any sweep trains: they are meant to be sampled.
_MOST_POINTS = 10**9


def worded(details: ErrorDetails, spec: type[SweepSpec]) -> Problem:
    """Returns a problem that pydantic found, in words: what was got, and how to fix it.

    Args:
        details: The problem.
        spec: The model that it was found in.
    """
    kind, got, context = details["type"], details["input"], details.get("ctx", {})
    # Pydantic puts the chosen member of a union into the path, where the file has no such key.
    path = tuple(part for part in details["loc"] if part not in _TAGS and part != "[key]")
    if kind == "extra_forbidden":
        *model, key = details["loc"]
        if not model and key in _ELSEWHERE:
            return Problem(path, f"unknown option {key!r}; here it is {_ELSEWHERE[str(key)]}")
        return Problem(path, f"unknown option {key!r}; {nearest(key, _options_at(tuple(model), spec))}")
    if kind in ("model_type", "model_attributes_type", "dict_type") or (
        kind == "union_tag_not_found" and not isinstance(got, dict)
    ):
        form = _FORMS.get(str(path[0]), "a mapping of options") if len(path) == 1 else "a mapping of options"
        return Problem(path, f"must be {form} (got {_shown(got)})")
    if kind == "list_type":
        return Problem(path, f"must be a list (got {_shown(got)})")
    if kind == "missing":
        return Problem(path, "is required")
    if kind == "union_tag_invalid":
        tag, known = context["tag"], context["expected_tags"].replace("'", "").split(", ")
        meant = _ALGORITHMS_ELSEWHERE.get(tag, "")
        hint = f"here it is {meant}" if meant.partition(" ")[0] in known else nearest(tag, known)
        return Problem((*path, "algorithm"), f"unknown algorithm {tag!r}; {hint}")
    if kind == "union_tag_not_found":
        return Problem(path, "needs an 'algorithm'")
    message = message_of(details)
    return Problem(path, message if kind == "value_error" else f"{message} (got {_shown(got)})")


def message_of(details: ErrorDetails) -> str:
    """Returns what pydantic says of a value, in the words of other problems."""
    return details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def contradictions(spec: SweepSpec) -> Iterator[Problem]:
    """Yields the options of a spec that do not go together."""
    for index, bundle in enumerate(spec.bundles):
        at: ProblemPath = (index,) if isinstance(spec.resources_per_trial, list) else ()
        path = ("resources_per_trial", *at)
        if not any(bundle.values()):
            yield Problem(path, f"must reserve something (got {bundle})")
        gpus = bundle.get("gpu", 0)
        if gpus > 1 and gpus != int(gpus):
            yield Problem((*path, "gpu"), f"must be whole above 1: Ray splits no second GPU (got {gpus:g})")
    if spec.command is not None:
        yield from spec.command.problems(spec.space)
        if spec.setup is not None:
            yield Problem(("setup",), "a command starts a program of its own, which shares no data: leave it out")
    if spec.fuses and spec.command is not None:
        yield Problem(("fused",), f"is for recipes: a command trains in processes of its own (got {spec.fused})")
    if spec.fuses and (others := [t.name for t in spec.trackers if t.name != "tensorboard"]):
        yield Problem(("fused",), f"needs trackers that serve several trials in a process, not {others[0]}")
    if isinstance(spec.scheduler, (PbtSpec, Pb2Spec)):
        yield from _population_problems(spec, spec.scheduler)
    if isinstance(spec.scheduler, CurvesSpec):
        for parameter in (parameter for parameter in spec.space.parameters if parameter.domain.gridded):
            path = ("space", *parameter.name.split("."))
            yield Problem(
                path, "curves draws the values itself, and tries none of them in turn: write choice for grid"
            )
    yield from _number_problems(spec)
    named: dict[ProblemPath, Any] = {("search",): spec.search, ("scheduler",): spec.scheduler}
    named |= {("trackers", index): tracker for index, tracker in enumerate(spec.trackers)}
    for path, one in named.items():
        if isinstance(one, OpenOptions):
            yield from problems(one.options, path)


def _number_problems(spec: SweepSpec) -> Iterator[Problem]:
    if spec.num_samples == -1 and not spec.budget.limited:
        message = "-1 draws until the budget is spent: give one, {time: 2h} or {epochs: 500}"
        yield Problem(("num_samples",), message)
    uncounted = [parameter.name for parameter in spec.gridded if parameter.domain.values() is None]
    for name in uncounted:
        path = ("space", *name.split("."))
        yield Problem(path, "grid search needs values that can be counted; give quniform, randint, choice or grid")
    if uncounted:
        return
    if (size := spec.space.grid(spec.gridded).size) > _MOST_POINTS:
        yield Problem(("space",), f"the grid has {size:.1e} points: give choices instead, which are sampled")
    elif spec.num_trials is not None and len(spec.points_to_evaluate) > spec.num_trials:
        message = f"are {len(spec.points_to_evaluate)}, of {spec.num_trials} trials: raise num_samples"
        yield Problem(("points_to_evaluate",), message)
    if isinstance(spec.scheduler, (PbtSpec, Pb2Spec)) and spec.num_trials == 1:
        message = "a population has at least 2 trials, of which the worst take over the best (got 1): give 8, say"
        yield Problem(("num_samples",), message)


def _population_problems(spec: SweepSpec, scheduler: PbtSpec | Pb2Spec) -> Iterator[Problem]:
    path = ("scheduler", "hyperparam_mutations")
    parameters = {parameter.name: parameter for parameter in spec.space.parameters}
    for name in scheduler.hyperparam_mutations or ():
        if name not in parameters:
            yield Problem(path, f"the space has no parameter {name!r}; {nearest(name, parameters)}")
        elif parameters[name].when:
            yield Problem(path, f"{name!r} does not always exist: it cannot be perturbed")
    mutated = spec.space.mutated(scheduler.hyperparam_mutations)
    if scheduler.hyperparam_mutations is None and not mutated:
        message = "nothing can be perturbed: no parameter of the space always exists; leave out the 'when' of one"
        yield Problem(path, message)
    for parameter in mutated:
        if isinstance(scheduler, Pb2Spec) and (not isinstance(parameter.domain, Float) or parameter.domain.q):
            yield Problem(path, f"pb2 perturbs floats only, {parameter.name!r} is none: name those that are")


def _options_at(location: ProblemPath, spec: type[SweepSpec]) -> list[str]:
    """The options there are at pydantic's location of a model: ``()``, ``("budget",)``, ``("search", "tpe")``."""
    if not location:
        return list(spec.model_fields)
    model = spec.model_fields[str(location[0])].annotation if len(location) == 1 else ALGORITHMS[str(location[-1])]
    return list(model.model_fields)  # type: ignore[union-attr]


def _shown(value: Any) -> str:
    """A value as a message shows it: objects that say nothing of themselves by their class."""
    shown = repr(value)
    if shown.startswith("<") and " at 0x" in shown and not callable(value):
        return f"a {type(value).__name__}"
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."

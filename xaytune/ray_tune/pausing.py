"""Judges that pause trials: Ray Tune's HyperBand and population based training."""

from __future__ import annotations

import contextlib
import math
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import HyperBandScheduler, PopulationBasedTraining, TrialScheduler

from xaytune.errors import Problem, SpecError
from xaytune.ray_tune.judge import Exploit, Judge
from xaytune.ray_tune.ray_space import to_ray
from xaytune.sweep.algorithms import HyperbandSpec, Pb2Spec, PbtSpec
from xaytune.sweep.domains import Domain, Float, Integer
from xaytune.sweep.seeds import trial_seed
from xaytune.sweep.space import Parameter, nest
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import Assignment, DecisionPoints, StopRequest, Verdict

__all__ = ["HyperbandJudge", "PopulationJudge"]


class _Hands:
    """What one of Ray's schedulers sees of Tune's controller: what it asks for is taken down."""

    search_alg = None

    def __init__(self) -> None:
        self.controller: Any = None  # Tune's; None while a journal is replayed
        self.trials: dict[TuneTrial, None] = {}
        self.stopped: list[TuneTrial] = []
        self.offered: list[TuneTrial] = []

    def get_trials(self) -> list[TuneTrial]:
        return list(self.trials)

    get_live_trials = get_trials

    def stop_trial(self, trial: TuneTrial) -> None:
        self.stopped.append(trial)

    def pause_trial(self, trial: TuneTrial, should_checkpoint: bool = True) -> None:
        """A trial was saved where it was judged: Tune need not do so."""
        if self.controller is None:
            trial.set_status(TuneTrial.PAUSED)
        else:
            self.controller.pause_trial(trial, should_checkpoint=False)

    def _schedule_trial_save(self, trial: TuneTrial, result: Any = None) -> str:
        self.offered.append(trial)
        return str(trial)  # what stands for the checkpoint


class _PausingJudge(Judge):
    def __init__(self, spec: SweepSpec, scheduler: TrialScheduler, points: DecisionPoints) -> None:
        super().__init__(spec, scheduler, points)
        self._hands = _Hands()

    def add(self, controller: Any, trial: TuneTrial) -> None:
        self._hands.trials[trial] = None
        self.scheduler.on_trial_add(self._hands, trial)  # type: ignore[arg-type]

    def choose(self) -> TuneTrial | None:
        return self.scheduler.choose_trial_to_run(self._hands)  # type: ignore[arg-type]

    def ended(self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool) -> None:
        if self._hands.trials.pop(trial, 0) is None:
            self._hands.controller = controller
            self.scheduler.on_trial_remove(self._hands, trial)  # type: ignore[arg-type]

    def verdict(self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool) -> Verdict:
        """Judges a trial at a decision point; see :meth:`Judge.verdict`."""
        if value is None or not math.isfinite(value):
            self.ended(controller, trial, time, None, False)
            return self._diverged(time)
        self._hands.controller = controller
        return self._decide(trial, time, value)

    def _decide(self, trial: TuneTrial, time: int, value: float) -> Verdict:
        raise NotImplementedError


class HyperbandJudge(_PausingJudge):
    """Asks Ray's HyperBand: a trial waits, paused, until all of its bracket have come as far."""

    def __init__(self, spec: SweepSpec, options: HyperbandSpec) -> None:
        self._hyperband = HyperBandScheduler(
            time_attr=options.time_attr,
            metric=spec.metric,
            mode=spec.mode,
            max_t=options.max_t,
            reduction_factor=options.reduction_factor,
        )
        self._stops: list[tuple[TuneTrial, StopRequest]] = []
        times = {options.max_t}
        for bracket in range(self._hyperband._s_max_1):
            time = self._hyperband._get_r0(bracket)
            while 0 < time < options.max_t:
                times.add(time)
                time *= options.reduction_factor
        points = DecisionPoints(options.time_attr, tuple(sorted(times)), pausing=True)
        super().__init__(spec, self._hyperband, points)

    def take_stops(self) -> list[tuple[TuneTrial, StopRequest]]:
        """Returns the waiting trials that their bracket stopped, and why."""
        stops, self._stops = self._stops, []
        return stops

    def ended(self, controller: Any, trial: TuneTrial, time: int, value: float | None, due: bool) -> None:
        """Takes in that a trial ended, which may be what its bracket waits for."""
        bracket = self._hyperband._trial_info[trial][0]
        # Ray forgets to; a bracket would wait for ever for a trial that ended by itself.
        bracket.is_being_processed = False
        super().ended(controller, trial, time, value, due)
        if bracket.finished():
            bracket.cleanup_full(self._hands)
        self._collect(bracket, len(bracket.current_trials()), last=bracket._halves == 0)

    def _decide(self, trial: TuneTrial, time: int, value: float) -> Verdict:
        bracket = self._hyperband._trial_info[trial][0]
        compared, last = len(bracket.current_trials()), bracket._halves == 0
        decision = self.scheduler.on_trial_result(self._hands, trial, self._result(time, value))  # type: ignore[arg-type]
        self._collect(bracket, compared, last)
        if decision == TrialScheduler.PAUSE:
            return _pause(f"waits at {self._at(time)} for the others of its bracket")
        if decision == TrialScheduler.STOP:
            self._hands.trials.pop(trial, None)
            request = self._stop(bracket, compared, last, time, value)
            return Verdict(request.reason, request, compared=compared)
        return Verdict(f"{self._at(time)}: {value:.4g} goes on, of {compared} in its bracket", compared=compared)

    def _collect(self, bracket: Any, compared: int, last: bool) -> None:
        """Takes down which of the trials that wait are stopped."""
        for trial in self._hands.stopped:
            result = bracket._live_trials[trial]
            time, value = result[self.points.time_attr], result[self._metric]
            self._stops.append((trial, self._stop(bracket, compared, last, time, value)))
            self._hands.trials.pop(trial, None)
        for trial in self._hands.stopped:
            bracket.cleanup_trial(trial)
        self._hands.stopped = []

    def _stop(self, bracket: Any, compared: int, last: bool, time: int, value: float) -> StopRequest:
        """Words why a trial is stopped: it was weak, or its bracket has come to the end of its last round."""
        if last:
            return StopRequest(f"its bracket reached its end at {self._at(time)}", status="completed")
        return StopRequest(
            f"{self._at(time)}: {value:.4g} is not among the best {bracket._n} of {compared} in its bracket"
        )


class PopulationJudge(_PausingJudge):
    """Asks Ray's PBT or PB2: the worst of a population go on from the checkpoints of the best."""

    def __init__(self, spec: SweepSpec, options: PbtSpec | Pb2Spec) -> None:
        self._spec = spec
        common: dict[str, Any] = {
            "time_attr": options.time_attr,
            "metric": spec.metric,
            "mode": spec.mode,
            "perturbation_interval": options.perturbation_interval,
            "quantile_fraction": options.quantile_fraction,
            "log_config": False,
        }
        if isinstance(options, PbtSpec):
            scheduler = PopulationBasedTraining(
                **common,
                hyperparam_mutations={p.name: to_ray(p.domain) for p in spec.mutated},
                resample_probability=options.resample_probability,
                burn_in_period=options.burn_in_period,
            )
        else:
            scheduler = _pb2(spec, common)
        self._exploits: list[Exploit] = []
        self._judgements: Counter[TuneTrial] = Counter()
        points = DecisionPoints(options.time_attr, every=options.perturbation_interval, pausing=True)
        super().__init__(spec, scheduler, points)

    def add(self, controller: Any, trial: TuneTrial) -> None:
        """Takes in a new trial, with what may be perturbed of it."""
        self.prepare(trial)
        super().add(controller, trial)

    def prepare(self, trial: TuneTrial) -> None:
        """Lets the scheduler find in a trial's configuration what it may perturb."""
        assignment: Assignment = trial.config["assignment"]
        trial.config.update(self._spec.space.values(assignment.config))

    def _present(self, trial: TuneTrial) -> Iterator[Parameter]:
        return (parameter for parameter in self._spec.space.parameters if parameter.name in trial.config)

    def take_offers(self) -> list[TuneTrial]:
        """Returns the best of the population, whose checkpoints others may take over."""
        offered, self._hands.offered = self._hands.offered, []
        return offered

    def take_exploits(self) -> list[Exploit]:
        """Returns the worst of the population, which go on from what the best are."""
        exploits, self._exploits = self._exploits, []
        return exploits

    def _decide(self, trial: TuneTrial, time: int, value: float) -> Verdict:
        assignment: Assignment = trial.config["assignment"]
        self._judgements[trial] += 1  # the same seed again would perturb the same configuration the same way
        with _drawing_from(trial_seed(assignment.seed, self._judgements[trial])), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sklearn, on PB2's behalf
            decision = self.scheduler.on_trial_result(self._hands, trial, self._result(time, value))  # type: ignore[arg-type]
        source: Assignment = trial.config["assignment"]
        if source.number != assignment.number:
            # Tune is not to restore anything: the trial finds the checkpoint in its folder.
            manager: Any = trial.run_metadata.checkpoint_manager
            manager._latest_checkpoint_result = None
            values = {p.name: _within(p.domain, trial.config[p.name]) for p in self._present(trial)}
            config = nest({**self._spec.space.constants, **values})
            trial.config["assignment"] = assignment
            # To the end: Ray would let it overtake those that have come as far, for ever if it is the worst.
            del self._hands.trials[trial]
            self._hands.trials[trial] = None
            self._exploits.append(Exploit(trial, source.number, config))
            return Verdict(
                f"{self._at(time)}: {value:.4g} is among the worst: it goes on from trial {source.number}"
            )
        if decision == TrialScheduler.PAUSE:
            return _pause(f"makes room at {self._at(time)} for the others of its population")
        return Verdict(f"{self._at(time)}: {value:.4g} is not among the worst of its population")


def _pause(reason: str) -> Verdict:
    return Verdict(reason, StopRequest(reason, "paused"))


def _within(domain: Domain, value: Any) -> Any:
    """Holds a perturbed value within the bounds of the space, which Ray does not."""
    if isinstance(domain, Float):
        return float(min(max(value, domain.low), domain.high))
    if isinstance(domain, Integer):
        return int(min(max(value, domain.low), domain.high - 1))
    return value


def _pb2(spec: SweepSpec, common: dict[str, Any]) -> PopulationBasedTraining:
    try:
        from ray.tune.schedulers.pb2 import PB2

        bounds: dict[str, Any] = {
            p.name: [p.domain.low, p.domain.high] for p in spec.mutated if isinstance(p.domain, Float)
        }
        return PB2(**common, hyperparam_bounds=bounds)
    except (ImportError, RuntimeError):
        message = "pb2 needs the package scikit-learn: pip install 'xaytune[search]'"
        raise SpecError([Problem(("scheduler", "algorithm"), message)]) from None


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Lets Ray's schedulers draw from a seed; the process's own generators are put back."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])

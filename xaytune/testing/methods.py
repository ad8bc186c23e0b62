"""The contract suites of search methods, schedulers and samplers."""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from xaytune.errors import SpecError
from xaytune.search.configurations import seeded
from xaytune.search.extension import Setting
from xaytune.search.method import Decision, Exploit, KeepCheckpoint, NewTrial, Pause, Result, SearchMethod, Stop
from xaytune.search.replay import replay
from xaytune.search.sampled import SampledMethod
from xaytune.search.samplers.plain import RandomSampler
from xaytune.search.samplers.sampler import Sampler
from xaytune.search.schedulers.asha import AshaScheduler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.objective import Objective
from xaytune.sweep.space_parser import parse_space
from xaytune.testing.playing import Played, play

__all__ = ["SamplerContract", "SchedulerContract", "SearchMethodContract"]

_SPACE = {
    "x": {"uniform": [0, 1]},
    "lr": {"loguniform": [1e-4, 1]},
    "dropout": {"quniform": [0, 0.5, 0.1]},
    "layers": {"randint": [1, 6]},
    "optimizer": {"choice": ["sgd", "adam", "lion"]},
    "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
    "data": {"name": "digits"},
}


class SearchMethodContract(ABC):
    """What every search method does; override :meth:`make`.

    Attributes:
        trials: Trials of the sweeps that are played.
        prefixes: From how many prefixes of a journal a method is rebuilt.
    """

    trials: ClassVar[int] = 14
    prefixes: ClassVar[int] = 12

    @abstractmethod
    def make(self, setting: Setting) -> SearchMethod:
        """Returns a new search method for a sweep; the metric is ``m``."""

    def setting(self, mode: Literal["max", "min"] = "max", **options: Any) -> Setting:
        """Returns the sweep that is played."""
        objective, space = Objective("m", mode), parse_space(_SPACE)
        defaults: dict[str, Any] = {"seed": 3, "num_trials": self.trials, "early_stopping": True}
        return Setting(objective, space, **{**defaults, **options})

    @pytest.mark.parametrize("workers", [1, 3, 20])
    def test_every_trial_comes_to_an_end_and_then_the_sweep_is_done(self, workers: int) -> None:
        played = play(self.make(self.setting()), rising, workers=workers)
        assert sorted(played.ends) == list(range(self.trials))
        assert not played.paused

    @pytest.mark.parametrize("seed", range(3))
    def test_trials_that_fail_diverge_or_end_by_themselves_hold_up_no_other(self, seed: int) -> None:
        played = play(self.make(self.setting()), sometimes_not_finite, seed=seed, faults=0.1)
        assert sorted(played.ends) == list(range(self.trials))

    @pytest.mark.parametrize("evaluated", [(4,), (1, 5, 3)], ids=["coarsely", "each at its own times"])
    def test_trials_that_are_evaluated_between_decision_points_hold_up_no_other(
        self, evaluated: tuple[int, ...]
    ) -> None:
        method = self.make(self.setting())
        played = play(method, sometimes_not_finite, end=24, faults=0.02, evaluated=evaluated)
        assert sorted(played.ends) == list(range(self.trials))

    def test_after_a_fall_back_every_trial_still_comes_to_an_end(self) -> None:
        method, reasons = self.make(self.setting()), ["a decision takes too long"]

        def falling_back(trial: int, config: Mapping[str, Any], time: int) -> float:
            if trial == self.trials // 2 and reasons:
                method.fall_back(reasons.pop())
            return rising(trial, config, time)

        assert sorted(play(method, falling_back).ends) == list(range(self.trials))

    def test_a_trial_whose_value_is_not_finite_is_stopped(self) -> None:
        method = self.make(self.setting())
        played = play(method, lambda trial, config, time: None if trial % 3 == 1 else rising(trial, config, time))
        judged = [call for call in played.calls if call.name == "on_result" and call.arguments[1].value is None]
        assert all(isinstance(call.answer[0], Stop) for call in judged)
        assert len(judged) == len({call.arguments[0] for call in judged})

    @pytest.mark.parametrize("seed", range(2))
    def test_the_same_events_give_the_same_decisions(self, seed: int) -> None:
        first, again = (
            play(self.make(self.setting()), sometimes_not_finite, seed=seed, faults=0.05) for _ in range(2)
        )
        assert first.calls == again.calls

    @pytest.mark.parametrize("seed", range(2))
    def test_a_method_rebuilt_from_any_prefix_of_a_journal_decides_the_same(self, seed: int) -> None:
        played = play(self.make(self.setting()), sometimes_not_finite, seed=seed, faults=0.05)
        for cut in self._cuts(played):
            method = self.make(self.setting())
            left = replay(method, played.journal(cut), "m")
            assert not left.exploits
            assert not left.keeps
            for call in played.calls[cut:]:
                assert call.again(method) == call.answer

    def test_what_was_decided_and_not_carried_out_is_left_to_do_after_a_replay(self) -> None:
        played = play(self.make(self.setting()), rising)
        for cut in self._cuts(played):
            call = played.calls[cut - 1]
            actions = call.answer if call.name in ("on_result", "on_end") else []
            left = replay(self.make(self.setting()), played.journal(cut, carried_out=False), "m")
            assert left.keeps == {action.trial for action in actions if isinstance(action, KeepCheckpoint)}
            assert list(left.exploits.values()) == [action for action in actions if isinstance(action, Exploit)]
            for action in actions:
                if isinstance(action, Stop):
                    assert left.stops[action.trial] == action

    def test_replay_tells_which_trials_are_unfinished_and_paused(self) -> None:
        played = play(self.make(self.setting()), rising)
        for cut in self._cuts(played):
            left = replay(self.make(self.setting()), played.journal(cut), "m")
            calls = played.calls[:cut]
            ended = {call.arguments[0] for call in calls if call.name == "on_end"}
            begun = sum(isinstance(call.answer, NewTrial) for call in calls)
            assert set(left.unfinished) == set(range(begun)) - ended
            newest: dict[int, Any] = {}
            for call in calls:
                actions = call.answer if call.name in ("on_result", "on_end") else []
                newest |= {action.trial: action for action in actions if isinstance(action, Decision)}
                if call.name == "on_resume":
                    newest.pop(call.arguments[0], None)
            paused = {trial for trial, action in newest.items() if isinstance(action, (Pause, Exploit))}
            assert left.paused == paused - ended

    @pytest.mark.parametrize("seed", range(2))
    def test_every_configuration_is_one_of_the_space(self, seed: int) -> None:
        setting = self.setting(seed=seed)
        played = play(self.make(setting), rising, workers=2, seed=seed)
        for config in played.given:
            try:
                setting.space.complete(config)
            except SpecError as error:
                raise AssertionError(f"{config} is none of the space: {error}") from None
            assert config["data"] == {"name": "digits"}

    @pytest.mark.parametrize("seed", range(2))
    def test_to_minimise_is_to_maximise_what_is_negated(self, seed: int) -> None:
        def negated(trial: int, config: Mapping[str, Any], time: int) -> float | None:
            value = sometimes_not_finite(trial, config, time)
            return None if value is None else -value

        largest = play(self.make(self.setting()), sometimes_not_finite, seed=seed, faults=0.05)
        smallest = play(self.make(self.setting("min")), negated, mode="min", seed=seed, faults=0.05)
        assert [_without_values(call.answer) for call in largest.calls] == [
            _without_values(call.answer) for call in smallest.calls
        ]

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("mode", ["max", "min"])
    def test_the_trial_that_is_best_at_every_time_trains_to_its_end(self, mode: Any, seed: int) -> None:
        ranks = seeded(seed).sample(range(self.trials), self.trials)
        sign = 1 if mode == "max" else -1
        played = play(
            self.make(self.setting(mode)),
            lambda trial, _, time: sign * (ranks[trial] + time / 100),
            mode=mode,
            seed=seed,
        )
        best = ranks.index(self.trials - 1)
        assert played.ends[best].status == "completed"
        assert best not in {exploit.trial for exploit in played.decisions(Exploit)}

    def test_points_to_evaluate_are_tried_first_and_exactly_as_given(self) -> None:
        point = {
            "x": 0.25,
            "lr": 0.01,
            "dropout": 0.1,
            "layers": 2,
            "optimizer": "adam",
            "data": {"name": "digits"},
        }
        points = (point, {**point, "x": 0.75})
        played = play(self.make(self.setting(points_to_evaluate=points)), rising)
        new = [call.answer.config for call in played.calls if isinstance(call.answer, NewTrial)]
        assert new[:2] == list(points)
        assert len(new) == self.trials

    def _cuts(self, played: Played) -> list[int]:
        return seeded(len(played.calls)).sample(
            range(1, len(played.calls) + 1), min(self.prefixes, len(played.calls))
        )


class SchedulerContract(SearchMethodContract):
    """What every scheduler does; override :meth:`make_scheduler`."""

    @abstractmethod
    def make_scheduler(self) -> Scheduler:
        """Returns a new scheduler."""

    def make(self, setting: Setting) -> SearchMethod:
        """Puts the scheduler beside random draws."""
        return SampledMethod(setting, RandomSampler(), self.make_scheduler())

    def test_a_trial_that_ended_and_is_continued_by_a_person_is_judged_on(self) -> None:
        method = self.make(self.setting())
        if method.points.pausing:
            pytest.skip("only schedulers that never pause judge a trial after its end")
        play(method, rising)
        assert [action.trial for action in method.on_result(0, Result(100, 0.5))] == [0]


class SamplerContract(SearchMethodContract):
    """What every sampler does; override :meth:`make_sampler`.

    Attributes:
        scheduler: The class of the scheduler beside it.
        learning_trials: Trials after which a sampler that learns draws well.
    """

    trials: ClassVar[int] = 10
    prefixes: ClassVar[int] = 4
    scheduler: ClassVar[type[Scheduler]] = AshaScheduler
    learning_trials: ClassVar[int] = 24

    @abstractmethod
    def make_sampler(self) -> Sampler:
        """Returns a new sampler."""

    def make(self, setting: Setting) -> SearchMethod:
        """Puts the sampler beside a scheduler."""
        return SampledMethod(setting, self.make_sampler(), self.scheduler())

    def test_the_same_seed_gives_the_same_configurations_and_another_gives_others(self) -> None:
        def configs(seed: int) -> list[Any]:
            return play(self.make(self.setting(seed=seed)), rising).given

        assert configs(1) == configs(1)
        assert configs(1) != configs(2)

    def test_no_configuration_of_a_discrete_space_comes_twice_and_the_sweep_ends_with_the_space(self) -> None:
        space = parse_space({"a": {"choice": [1, 2]}, "b": {"randint": [0, 3], "when": {"a": 1}}})
        setting = dataclasses.replace(self.setting(num_trials=None), space=space)
        given = play(self.make(setting), lambda trial, config, time: float(time)).given
        assert len(given) == 4
        assert all(one != other for one, other in itertools.combinations(given, 2))

    def test_it_learns_what_does_well_also_from_trials_that_are_stopped(self) -> None:
        if not self.make_sampler().adaptive:
            pytest.skip("it does not learn")
        space = parse_space({"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}})

        def value(trial: int, config: Mapping[str, Any], time: int) -> float | None:
            worth: float = 1 - (config["x"] - 0.3) ** 2 - (config["y"] - 0.7) ** 2
            return worth * (1 - 0.5**time)

        setting = dataclasses.replace(self.setting(num_trials=self.learning_trials), space=space)
        given = play(self.make(setting), value, workers=1).given
        far = [((config["x"] - 0.3) ** 2 + (config["y"] - 0.7) ** 2) ** 0.5 for config in given[-8:]]
        assert sum(far) / len(far) < 0.3  # draws at random are .45 away


def rising(trial: int, config: Mapping[str, Any], time: int) -> float:
    """A curve that rises to what its configuration is worth."""
    worth = 1 - (config["x"] - 0.3) ** 2 + config["layers"] / 100
    return float(worth * (1 - 0.7**time) + seeded(trial, time).gauss(0, 0.02))


def sometimes_not_finite(trial: int, config: Mapping[str, Any], time: int) -> float | None:
    """The same, but some trials diverge."""
    return None if seeded(trial, time, 1).random() < 0.04 else rising(trial, config, time)


def _without_values(answer: Any) -> Any:
    """What was answered, but for the values and the texts that hold them."""
    if isinstance(answer, list):
        return [_without_values(action) for action in answer]
    if isinstance(answer, Exploit):
        return answer.trial, answer.donor, answer.config
    if isinstance(answer, Decision):
        return type(answer), answer.trial, answer.compared
    return answer

"""Every scheduler and sampler that is built in keeps its contract (PB2's is tested beside Ray)."""

from __future__ import annotations

import pytest

from xaytune.search.samplers.model_based import CmaesSampler, GpSampler, QmcSampler, TpeSampler
from xaytune.search.samplers.plain import RandomSampler
from xaytune.search.samplers.sampler import Sampler
from xaytune.search.schedulers.asha import AshaScheduler
from xaytune.search.schedulers.fifo import FifoScheduler
from xaytune.search.schedulers.hyperband import HyperbandScheduler
from xaytune.search.schedulers.median import MedianScheduler
from xaytune.search.schedulers.pbt import PbtScheduler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.testing import SamplerContract, SchedulerContract

pytestmark = pytest.mark.slow


class TestFifo(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return FifoScheduler()


class TestAsha(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return AshaScheduler(max_t=9, reduction_factor=3)


class TestMedian(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return MedianScheduler(grace_period=2)


class TestHyperband(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return HyperbandScheduler(max_t=9)


class TestHyperbandShortOfMaxT(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return HyperbandScheduler(max_t=7, reduction_factor=2)


class TestPbt(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return PbtScheduler(perturbation_interval=2)


class TestPbtOfHalves(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return PbtScheduler(perturbation_interval=2, quantile_fraction=0.5, burn_in_period=3)


class TestSynchronousPbt(SchedulerContract):
    def make_scheduler(self) -> Scheduler:
        return PbtScheduler(perturbation_interval=2, synch=True)


class TestRandom(SamplerContract):
    def make_sampler(self) -> Sampler:
        return RandomSampler()


class TestQmc(SamplerContract):
    def make_sampler(self) -> Sampler:
        return QmcSampler()


class TestTpe(SamplerContract):
    def make_sampler(self) -> Sampler:
        return TpeSampler(n_startup_trials=5)


class TestGp(SamplerContract):
    trials = 6  # a draw from its model takes a tenth of a second
    learning_trials = 13
    prefixes = 2

    def make_sampler(self) -> Sampler:
        return GpSampler(n_startup_trials=5)


class TestCmaes(SamplerContract):
    def make_sampler(self) -> Sampler:
        return CmaesSampler()

"""How many trials a process wants at once, by what it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from xaytune.trial.common import kernel
from xaytune.trial.common.kernel import memory_left
from xaytune.trial.process.width import Memory, Width

Gains = Mapping[int, float]


def tried(gains: Gains, *, fits: Callable[[int], bool] = lambda width: True, most: int = 10**6) -> tuple[int, str]:
    """Lets a process have as many trials as it wants, which train so much faster than halves of them."""
    width: Width = Width(lambda: fits(width.wanted))
    for round in range(1000):
        wanted = width.wanted
        if wanted <= most:
            assert width.did(wanted, 1, 1e-9, wanted // 2, most) is None, "it has not so many trials yet"
        slow = 10 if round % 5 == 0 else 1  # a trial is begun
        in_a_row = 1 + 9 * (round % 2)
        each = 0.01 / in_a_row * (gains[wanted] if width.halves(wanted) else 1)
        found = width.did(wanted * in_a_row, in_a_row, slow * wanted * in_a_row * each, wanted, most)
        if found is not None:
            return width.wanted, found
    raise AssertionError("it never settles")


@pytest.mark.parametrize(
    ("gains", "width"),
    [({8: 1.9, 16: 1.6, 32: 1.3, 64: 1.05}, 64), ({8: 1.9, 16: 1.6, 32: 0.9}, 16), ({8: 1.05}, 8)],
)
def test_a_process_wants_twice_as_many_trials_while_that_is_faster(gains: Gains, width: int) -> None:
    assert tried(gains)[0] == width


def test_a_process_wants_no_more_trials_than_there_is_memory_for() -> None:
    gains = dict.fromkeys((8 << n for n in range(8)), 1.9)
    assert tried(gains, fits=lambda width: width < 32)[0] == 32
    assert tried(gains)[0] == 1024
    assert tried(gains, most=6) == (6, "6 at once: there is no memory for more")


@pytest.mark.parametrize("rounds", range(40, 48))
def test_a_process_that_is_given_fewer_trials_than_it_wants_trains_all_of_them_at_once(rounds: int) -> None:
    width = Width(lambda: True)
    while width.wanted == 8:
        assert width.did(8, 1, 1.001 / rounds * (1.9 if width.halves(8) else 1), 8, 10**6) is None
    assert not width.halves(8)
    assert width.did(8, 1, 0.01, 8, 10**6) is None
    assert not width.halves(8)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 5\ninactive_file 200"}, [500]),
        ({"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "700", "memory.stat": ""}, [300]),
        ({"memory.max": "max", "memory.current": "700", "memory.stat": ""}, []),
        ({}, []),
    ],
    ids=["version 2", "version 1", "no limit", "none"],
)
def test_the_memory_that_a_container_may_take_yet_is_known(
    files: Mapping[str, str], left: list[int], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert memory_left([tmp_path]) == left


def test_there_is_memory_for_more_trials_where_nothing_limits_it_but_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "_memory_groups", list)
    assert Memory(gpus=0)()

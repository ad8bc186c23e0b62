"""How many trials a process wants at once, by what it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from xaytune.trial.width import Width

Rates = Mapping[int, float]


def tried(rates: Rates, *, fits: Callable[[int], bool] = lambda width: True, most: int = 10**6) -> tuple[int, str]:
    """Lets a process have as many trials as it wants, and train so many steps a second; returns what it finds."""
    width: Width = Width(lambda: fits(width.wanted))
    for round in range(1000):
        wanted = width.wanted
        if wanted <= most:
            assert width.did(wanted, 1e-9, wanted // 2, most) is None, "it has not so many trials yet"
        slow = 10 if round % 5 == 0 else 1  # a trial is begun
        found = width.did(wanted, slow * wanted / rates[wanted], wanted, most)
        if found is not None:
            return width.wanted, found
    raise AssertionError("it never settles")


@pytest.mark.parametrize(
    ("rates", "width"),
    [
        ({8: 1000.0, 16: 1900.0, 32: 3000.0, 64: 3100.0}, 64),
        ({8: 1000.0, 16: 1900.0, 32: 1500.0}, 16),
        ({8: 1000.0, 16: 990.0}, 8),
    ],
)
def test_a_process_wants_twice_as_many_trials_while_that_is_faster(rates: Rates, width: int) -> None:
    assert tried(rates)[0] == width


def test_a_process_wants_no_more_trials_than_there_is_memory_for() -> None:
    rates = {8 << n: 1000.0 * 2**n for n in range(8)}
    assert tried(rates, fits=lambda width: width < 32)[0] == 32
    assert tried(rates)[0] == 1024
    assert tried(rates, most=6) == (6, "6 at once: there is no memory for more")

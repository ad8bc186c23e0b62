"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaytune.sweep.numbers import told_apart, written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.9877"),
        (100001.26, "100001"),
        (-123456789.5, "-123456790"),
        (1e-5, "1e-05"),
        (2.5e12, "2.5e+12"),
        (float("inf"), "inf"),
        (3.0, "3"),
    ],
)
def test_a_number_has_four_digits_and_all_before_the_point(value: float, text: str) -> None:
    assert written(value) == text


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_two_numbers_that_differ_do_not_look_the_same(one: float, other: float) -> None:
    assert (len(set(told_apart(one, other))) == 1) == (one == other)


def test_no_more_digits_are_written_than_it_takes() -> None:
    assert told_apart(0.99991, 0.99992) == ["0.99991", "0.99992"]
    assert told_apart(100001.26, 100000.8) == ["100001.3", "100000.8"]
    assert told_apart(0.5, 0.25) == ["0.5", "0.25"]

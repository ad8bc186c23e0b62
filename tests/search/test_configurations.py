"""Whatever is searched, by whom, and after whatever: configurations are of the space."""

from __future__ import annotations

from tests.campaigns import spaces


def test_every_configuration_that_is_given_is_one_of_the_space() -> None:
    spaces.run(60, seed=17)

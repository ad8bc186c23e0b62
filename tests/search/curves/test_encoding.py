"""Configurations as points: every value that a parameter can have is reached, kept, and told from others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xaytune.search.curves.candidates import Candidates
from xaytune.search.curves.encoding import Encoding, key_of
from xaytune.sweep.space_parser import parse_space

SPACE: dict[str, Any] = {
    "lr": {"loguniform": [1e-4, 0.3]},
    "momentum": {"uniform": [-1, 2], "when": {"optimizer": "sgd"}},
    "dropout": {"quniform": [0, 0.5, 0.1]},
    "layers": {"randint": [1, 5]},
    "skip": {"uniform": [0, 1], "when": {"layers": [2, 4]}},
    "width": {"lograndint": [16, 513]},
    "optimizer": {"choice": ["sgd", "adam", None]},
    "nested": {"betas": {"choice": [[0.9, 0.99], [0.8, 0.9]], "when": {"optimizer": "adam"}}},
    "constant": 3,
}


def test_every_draw_is_a_configuration_of_the_space_and_comes_back_as_it_was() -> None:
    encoding = Encoding(parse_space(SPACE))
    rng = np.random.default_rng(0)
    near = encoding.neighbours(rng, encoding.random(rng, 6), 200)
    for point in np.concatenate([encoding.random(rng, 200), near]):
        config = encoding.config(point)
        assert 1e-4 <= config["lr"] <= 0.3
        assert round(config["dropout"] * 10) in range(6)
        assert type(config["layers"]) is int
        assert 1 <= config["layers"] <= 4
        assert 16 <= config["width"] <= 512
        assert config["constant"] == 3
        assert ("momentum" in config) == (config["optimizer"] == "sgd")
        assert ("skip" in config) == (config["layers"] in (2, 4))
        assert ("nested" in config) == (config["optimizer"] == "adam")
        assert key_of(encoding.point(config)) == key_of(point)


def test_a_parameter_that_does_not_exist_makes_no_difference_between_two_configurations() -> None:
    encoding = Encoding(parse_space(SPACE))
    points = encoding.settle(
        np.array([[0.5, 0.1, 0.5, 0.5, 0.5, 0.5, 0.9, 0.1], [0.5, 0.8, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9]])
    )
    columns = {name: index for index, name in enumerate(p.name for p in parse_space(SPACE).parameters)}
    absent = [columns["momentum"], columns["nested.betas"]]
    by_choice = points[:, columns["optimizer"]]
    assert len(set(by_choice)) == 1
    assert np.isfinite(encoding.features(points)).all()
    assert np.isnan(points[:, absent]).any()


def test_two_choices_are_as_far_apart_as_the_ends_of_a_range() -> None:
    encoding = Encoding(parse_space({"kind": {"choice": ["a", "b", "c"]}}))
    a, b = encoding.features(np.array([encoding.point({"kind": "a"}), encoding.point({"kind": "c"})]))
    assert np.linalg.norm(a - b) == pytest.approx(1)


@pytest.mark.parametrize("high", [2**31, 2**63])
def test_integers_of_any_size_are_drawn(high: int) -> None:
    encoding = Encoding(parse_space({"seed": {"randint": [0, high]}}))
    configs = [encoding.config(point) for point in encoding.random(np.random.default_rng(0), 100)]
    assert all(0 <= config["seed"] < high for config in configs)
    assert len({config["seed"] for config in configs}) > 90


def test_a_space_that_can_be_counted_is_listed_without_what_is_the_same() -> None:
    raw = {
        "optimizer": {"choice": ["sgd", "adam"]},
        "nesterov": {"choice": [True, False], "when": {"optimizer": "sgd"}},
    }
    listed = Encoding(parse_space(raw)).all()
    assert listed is not None
    assert len(listed) == 3
    logarithmic = Encoding(parse_space({"width": {"lograndint": [1, 9]}}))
    every = logarithmic.all()
    assert every is not None
    assert [logarithmic.config(point)["width"] for point in every] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("seed", range(3))
def test_the_first_eight_are_spread_each_eighth_of_each_parameter_has_one(seed: int) -> None:
    raw = {name: {"uniform": [0, 1]} for name in "abcdefghijkl"}
    candidates = Candidates(parse_space(raw), seed)
    rng = np.random.default_rng(0)
    points = np.concatenate([candidates.first(number, rng) for number in range(8)])
    assert (np.sort(np.floor(points * 8), axis=0) == np.arange(8)[:, None]).all()
    quarters = {(int(4 * a), int(2 * b)) for a, b in points[:, :2]}
    assert len(quarters) == 8

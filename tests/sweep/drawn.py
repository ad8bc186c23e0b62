"""Configurations of every kind of value, drawn by hypothesis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.sweep.values_to_import import Model, Optimizer, Rate, scale

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.floats(width=32).map(np.float32),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    st.floats().map(np.float64),
    st.sampled_from([Optimizer.SGD, Rate.LOW, Model, Model.Block, Model.build, scale, math.sin, Path("data/x")]),
)
keys = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
configurations = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys | st.sampled_from(["$tuple", "$float", "$"]), inner, max_size=3),
        st.sets(keys, max_size=3),
        st.frozensets(keys, max_size=3),
    ),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """A value beside its types, so that == compares both; without the order of mappings."""
    if isinstance(value, dict):
        return [dict, sorted(repr((typed(name), typed(item))) for name, item in value.items())]
    if type(value) in (list, tuple):
        return [type(value), [typed(item) for item in value]]
    if type(value) in (set, frozenset):
        return [type(value), sorted(map(repr, value))]
    return [type(value), "nan" if value != value else repr(value) if isinstance(value, float) else value]

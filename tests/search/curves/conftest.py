from __future__ import annotations

from typing import Any

import pytest

from xaytune.search.curves.method import CurvesMethod
from xaytune.search.extension import Setting
from xaytune.sweep.objective import Mode, Objective
from xaytune.sweep.space_parser import parse_space


@pytest.fixture
def make() -> Any:
    """Builds a method over a raw space."""

    def build(
        raw: dict[str, Any], mode: Mode = "max", max_t: int | None = 27, grace: int | None = 1, **options: Any
    ) -> CurvesMethod:
        method = CurvesMethod(grace_period=grace, max_t=max_t)
        method.begin(Setting(Objective("accuracy", mode), parse_space(raw), **options))
        return method

    return build

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.driver.harness import Played

Play = Callable[..., Played]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    played: list[Played] = []

    def begin(**options: Any) -> Played:
        for before in played:
            before.close()
        played.append(Played(tmp_path / "sweep", **options))
        return played[-1]

    yield begin
    for sweep in played:
        sweep.close()

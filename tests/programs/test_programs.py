from __future__ import annotations

import contextlib
import difflib
import io
import runpy
from pathlib import Path

import pytest

from xaytune.testing.training import JudgedRun
from xaytune.trainer.current import set_current_trial

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PROGRAMS = ["epochs", "steps", "episodes", "with_lightning", "with_transformers"]


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    """A program, where the library that it needs is there."""
    name: str = request.param
    if name.startswith("with_"):
        pytest.importorskip(name.removeprefix("with_"))
    return name


def result_of(name: str, run: JudgedRun | None = None) -> str:
    """The weights that a program prints last; it finds the given trial, or that of a program alone."""
    set_current_trial(run)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(str(HERE / f"{name}.py"))
    finally:
        set_current_trial(None)
    if run is not None:
        run.finish()
    return output.getvalue().splitlines()[-1]


def test_a_program_alone_has_the_same_result_with_xaytune_as_without(program: str) -> None:
    assert result_of(f"{program}_tuned") == result_of(program)


def test_xaytune_with_a_checkpoint_takes_at_most_fifteen_lines(program: str) -> None:
    plain, tuned = ((HERE / f"{name}.py").read_text().splitlines() for name in (program, f"{program}_tuned"))
    changed = [line for line in difflib.ndiff(plain, tuned) if line[0] in "+-" and line[1:].strip()]
    assert len(changed) <= 15, "\n".join(changed)


def test_a_program_that_is_stopped_and_continued_has_the_result_of_one_that_never_was(
    program: str, tmp_path: Path
) -> None:
    by_steps = program in ("steps", "episodes")
    run = JudgedRun(tmp_path, by="global_step" if by_steps else "epoch", stop_at=20 if by_steps else 2)
    stopped = result_of(f"{program}_tuned", run)
    assert run.judged == [20 if by_steps else 2]
    continued = result_of(f"{program}_tuned", JudgedRun(tmp_path))
    assert continued != stopped
    assert continued == result_of(f"{program}_tuned", JudgedRun(tmp_path / "straight"))

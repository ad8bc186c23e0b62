"""Runs the tests of the integrations with the oldest and the newest versions that their extras admit.

``python -m tests.versions``, or with the names of extras, from the root of the repository. Each set of versions
gets a virtual environment of its own, which takes from this one what it does not install itself: torch is not
downloaded again. They are kept under ``--folder``, for the next time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement

SUITES = {
    "lightning": ["tests/integrations/test_lightning.py"],
    "transformers": ["tests/integrations/test_transformers.py", "tests/integrations/test_accelerate.py"],
}


def requirements(extra: str) -> list[Requirement]:
    """What an extra needs, as pyproject.toml says."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["optional-dependencies"][extra]]


def oldest(requirement: Requirement) -> str:
    """The lowest version that a requirement admits, as pip takes it."""
    (lowest,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
    return f"{requirement.name}=={lowest}"


def environment(folder: Path, wanted: list[str]) -> Path:
    """Makes an environment on top of this one, and returns its python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        own = sysconfig.get_path("purelib", vars={"base": str(folder)})
        (Path(own) / "base.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, "-m", "pip", "install", "-q", "--upgrade", *wanted], check=True)
    return python


def versions(python: Path, names: list[str]) -> str:
    """The versions that an environment has."""
    program = "from importlib.metadata import version; print(version('{}'))"
    told = [subprocess.check_output([python, "-c", program.format(name)], text=True).strip() for name in names]
    return ", ".join(f"{name} {version}" for name, version in zip(names, told, strict=True))


def main() -> None:
    """Runs the tests, and exits with 1 where any of them failed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("extras", nargs="*", default=list(SUITES), help=f"of {', '.join(SUITES)}; by default all")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "xaytune-versions")
    parser.add_argument("--only", choices=["oldest", "newest"])
    options = parser.parse_args()
    failed = False
    for extra in options.extras:
        needed = requirements(extra)
        sets = {"oldest": [oldest(one) for one in needed], "newest": [str(one) for one in needed]}
        for name, wanted in sets.items():
            if options.only not in (None, name):
                continue
            python = environment(options.folder / f"{extra}-{name}", wanted)
            told = versions(python, ["torch", *(one.name for one in needed)])
            print(f"{extra}, {name}: {told}", flush=True)
            code = subprocess.run([python, "-m", "pytest", "-n", "0", *SUITES[extra]]).returncode
            print(f"{extra}, {name}: {'passed' if code == 0 else 'failed'} with {told}", flush=True)
            failed |= code != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()

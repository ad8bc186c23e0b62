"""Runs tests with other versions of what they rest on: releases of Ray, the oldest and newest of integrations.

``python -m tests.versions``, or with some of ``lightning``, ``transformers`` and ``ray``, from the root of the
repository. Each release of Ray that pyproject.toml admits and that can be had runs the contract suite of
executors; integrations run their own tests. Each set of versions gets a virtual environment of its own, which
takes from this one what it does not install itself: torch is not downloaded again. They are kept under
``--folder``, for the next time.
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
    "ray": ["tests/executors"],
}


def requirements(name: str) -> list[Requirement]:
    """What an extra needs, or a package by its name, as pyproject.toml says."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    needed = project["optional-dependencies"].get(name, project["dependencies"])
    found = [Requirement(text) for text in needed]
    return found if name in project["optional-dependencies"] else [one for one in found if one.name == name]


def releases(requirement: Requirement) -> list[str]:
    """Every release that a requirement admits and that can be had, the newest first."""
    listed = subprocess.check_output(
        [sys.executable, "-m", "pip", "index", "versions", requirement.name], text=True
    )
    (line,) = (line for line in listed.splitlines() if line.startswith("Available versions:"))
    return list(requirement.specifier.filter(line.partition(":")[2].replace(" ", "").split(",")))


def sets_of(name: str) -> dict[str, list[str]]:
    """The sets of versions to try, as pip takes them: each release of Ray, the oldest and newest of the others."""
    needed = requirements(name)
    if name == "ray":
        (ray,) = needed
        extras = ",".join(sorted(ray.extras))
        return {release: [f"ray[{extras}]=={release}"] for release in releases(ray)}
    return {"oldest": [oldest(one) for one in needed], "newest": [str(one) for one in needed]}


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
    parser.add_argument("names", nargs="*", default=list(SUITES), help=f"of {', '.join(SUITES)}; by default all")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "xaytune-versions")
    parser.add_argument("--only", metavar="SET", help="oldest, newest, or a release of Ray")
    options = parser.parse_args()
    failed = False
    for name in options.names:
        for one, wanted in sets_of(name).items():
            if options.only not in (None, one):
                continue
            python = environment(options.folder / f"{name}-{one}", wanted)
            told = versions(python, ["torch", *(needed.name for needed in requirements(name))])
            print(f"{name}, {one}: {told}", flush=True)
            code = subprocess.run([python, "-m", "pytest", "-n", "0", *SUITES[name]]).returncode
            print(f"{name}, {one}: {'passed' if code == 0 else 'failed'} with {told}", flush=True)
            failed |= code != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()

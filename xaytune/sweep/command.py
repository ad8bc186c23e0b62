"""A program of its own instead of a recipe: the words that it is started with, for a configuration.

``python train.py --lr {lr} --data {data.path}`` names parameters. There are four names more:

===============  =========================================================================================
``{args}``       ``--name value`` for each parameter of the configuration; a word of its own
``{overrides}``  ``name=value`` for each, as Hydra reads them; a word of its own
``{config_file}``  a file that holds the whole configuration, as JSON, which YAML readers read too
``{folder}``     the trial's own folder, which is there already
===============  =========================================================================================

``{{`` and ``}}`` are braces. No shell reads any of it: a value is one argument, whatever is in it.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xaytune.errors import Problem, nearest
from xaytune.sweep.space import Space, dotted, value_at
from xaytune.sweep.values import reference_to, text

_WHOLE_WORDS = ("args", "overrides")
_PLACES = ("config_file", "folder")
_NAME = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_BARE = re.compile(r"[\w@%+=:,./{}-]+")
_BARE_OVERRIDE = re.compile(r"[A-Za-z_][\w./-]*")
_NOT_TEXT = ("false", "inf", "nan", "null", "true")
# YAML 1.1 takes 1e-05 for text, and 1.0e-05 for a number.
# Neither JSON nor YAML has the word Infinity; both read a number that is too large as that.
_NUMBER = re.compile(r'("(?:[^"\\]|\\.)*")|(-?)(?:(?<![\d.])(\d+)(e[+-]\d+)|Infinity)')
# To Hydra a backslash is one, but for those before a quote, also before the quote that ends a text.
_BEFORE_QUOTE = re.compile(r"\\+(?='|\Z)")


@dataclass(frozen=True)
class Command:
    """What starts the program of a trial.

    Attributes:
        text: Its words, with the names of parameters in braces, as a shell would read them.
    """

    text: str

    @classmethod
    def parse(cls, value: Any) -> Command:
        """Reads a command, one text or a list of words.

        Raises:
            ValueError: It is neither, or a quote is not closed.
        """
        if isinstance(value, Command):
            return value
        if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(w, str) for w in value):
            value = " ".join(word if _BARE.fullmatch(word) else shlex.quote(word) for word in value)
        if not isinstance(value, str):
            raise ValueError(f"must be a text such as 'python train.py --lr {{lr}}', or a list (got {value!r})")
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise ValueError(f"cannot be read: {error} (got {value!r})") from None
        if not words:
            raise ValueError("names no program")
        return cls(value)

    @property
    def words(self) -> list[str]:
        """Its words, names not replaced."""
        return shlex.split(self.text)

    def __str__(self) -> str:
        return self.text

    def uses(self, name: str) -> bool:
        """Tells whether a name stands in it."""
        return name in self._names()

    def unnamed(self, space: Space) -> list[str]:
        """Returns the parameters of a space that stand nowhere in it."""
        used = self._names()
        if {*_WHOLE_WORDS, "config_file"} & {*used}:
            return []
        return [name for name in space.names if not any(f"{name}.".startswith(f"{place}.") for place in used)]

    def words_for(self, config: Mapping[str, Any], places: Mapping[str, str]) -> list[str]:
        """Returns the words that start the program for a configuration.

        Args:
            config: The configuration.
            places: The paths that ``config_file`` and ``folder`` stand for.
        """
        flat = dotted(config)
        whole = {
            "{args}": [word for name, value in flat.items() for word in (f"--{name}", _word(value))],
            "{overrides}": [f"{name}={_override(_plain(value))}" for name, value in flat.items()],
        }

        def replaced(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return match[0][0]
            return places[name] if name in places else _word(value_at(config, name))

        words = (whole.get(word) or [_NAME.sub(replaced, word)] for word in self.words)
        return [one for word in words for one in word]

    def problems(self, space: Space) -> Iterator[Problem]:
        """Yields what is wrong with the names that it holds.

        Args:
            space: The space of its configurations.
        """
        conditional = {parameter.name for parameter in space.parameters if parameter.when}
        reserved = (*_WHOLE_WORDS, *_PLACES)
        for name in self._names():
            if name in _WHOLE_WORDS and f"{{{name}}}" not in self.words:
                yield Problem(("command",), f"{{{name}}} stands for several words: it must be one by itself")
            if name in reserved and space.has(name):
                yield Problem(("command",), f"{{{name}}} has a meaning of its own: call the parameter otherwise")
            elif name not in reserved and not space.has(name):
                known = (*space.names, *reserved)
                hint = "; a brace itself is written twice" if not name.strip() or '"' in name else ""
                yield Problem(("command",), f"the space has no parameter {name!r}; {nearest(name, known)}{hint}")
            elif name in conditional:
                yield Problem(
                    ("command",),
                    f"{name!r} does not exist in every configuration: use {{args}}, {{overrides}} or "
                    "{config_file}, which hold what there is",
                )

    def _names(self) -> list[str]:
        return [match[1] for word in self.words for match in _NAME.finditer(word) if match[1] is not None]


def config_text(config: Mapping[str, Any]) -> str:
    """Returns a configuration as JSON that readers of YAML, 1.1 and 1.2, understand as the same, but for NaN."""
    return _NUMBER.sub(
        lambda match: match[1] or f"{match[2]}{match[3] or 1}.0{match[4] or 'e+999'}",
        json.dumps(_plain(dict(config)), indent=2),
    )


def what_is_missing(command: Command) -> Problem | None:
    """Says what a command names that is not there: its program, or the script that python is to run."""
    program, *arguments = command.words
    if "{" in program:
        return None
    if shutil.which(program, path=search_path()) is None:
        words = f"there is no program {program!r} that can be started: install it, or give its path"
        return Problem(("command",), words)
    script = next((word for word in arguments if not word.startswith("-")), "")
    of_python = os.path.basename(program).startswith("python") and script.endswith(".py")
    if of_python and "{" not in script and not os.path.exists(script):
        return Problem(("command",), f"there is no script {script!r} in {os.getcwd()}: give its path from there")
    return None


def search_path() -> str:
    """Returns where programs are looked for: first beside this python, whose `python` it is."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


def _word(value: Any) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _plain(value: Any) -> Any:
    """A value in what JSON has; classes and functions are ``module:name``."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "item"):
        return value.item()
    return reference_to(value) or text(value)


def _override(value: Any) -> str:
    """A plain value as Hydra reads it."""
    if isinstance(value, str):
        bare = _BARE_OVERRIDE.fullmatch(value) and value.lower() not in _NOT_TEXT
        return value if bare else "'" + _BEFORE_QUOTE.sub(r"\g<0>\g<0>", value).replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(map(_override, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_override(item)}" for name, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)

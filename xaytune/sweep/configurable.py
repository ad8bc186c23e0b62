"""What a spec can name by reference, with options: their model checks them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from xaytune.errors import Problem, SpecError, nearest
from xaytune.sweep.algorithms import Options
from xaytune.sweep.spec_problems import message_of


class Configurable:
    """Something with options: ``Class(keep=3)`` in Python, ``package.module:Class`` with ``keep: 3`` in a file.

    Attributes:
        options_model: The pydantic model of its options.
        options: Its options.

    Raises:
        SpecError: An option is unknown, or wrong.
    """

    options_model: ClassVar[type[Options]] = Options
    options: Any

    def __init__(self, **options: Any) -> None:
        try:
            self.options = self.options_model(**options)
        except ValidationError as error:
            known = [name for name in self.options_model.model_fields if name != "algorithm"]
            raise SpecError(_problem(details, known) for details in error.errors()) from None


def _problem(details: ErrorDetails, known: list[str]) -> Problem:
    *_, name = path = details["loc"] or ("",)
    if details["type"] == "extra_forbidden":
        return Problem(path, f"unknown option {name!r}; {nearest(name, known)}")
    message = message_of(details)
    got = "" if details["type"] in ("value_error", "missing") else f" (got {details['input']!r})"
    return Problem(details["loc"], message + got)

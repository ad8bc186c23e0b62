"""Arguments and options that several commands take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

__all__ = ["as_json_option", "print_json", "set_option", "spec_argument", "storage_option", "sweep_argument"]

spec_argument = click.argument("spec", type=click.Path(path_type=Path))
sweep_argument = click.argument("sweep")
set_option = click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Set an option of the spec; repeatable."
)
storage_option = click.option(
    "--storage",
    default="runs",
    show_default=True,
    help="Folder of sweeps: a path, or a URI such as s3://bucket/sweeps.",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    click.echo(json.dumps(value, indent=2, default=str))

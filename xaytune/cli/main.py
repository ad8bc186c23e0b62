"""The command line: what all commands share."""

from __future__ import annotations

from typing import Any

import click

from xaytune.cli import clusters, looking, running, simulating
from xaytune.cli.ending import BAD_INPUT, INTERRUPTED
from xaytune.errors import ClusterError, JournalError, RemoteError, SpecError

__all__ = ["main"]


class _Commands(click.Group):
    """Turns what is wrong with the input into one message, and interrupts into their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SpecError, JournalError, ClusterError) as error:
            click.echo(str(error), err=True)
            ctx.exit(BAD_INPUT)
        except RemoteError as error:
            click.echo(f"the storage cannot be reached: {error}", err=True)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xaytune")
def main() -> None:
    """Tunes PyTorch trainers on Ray. Exit codes: 0 done, 1 the sweep failed, 2 bad input, 130 interrupted."""


for command in (*running.COMMANDS, *simulating.COMMANDS, *looking.COMMANDS, *clusters.COMMANDS):
    main.add_command(command)

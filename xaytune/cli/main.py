"""The command line: what all commands share."""

from __future__ import annotations

import sys
from typing import Any

import click

from xaytune.cli import clusters, looking, running, simulating, starting
from xaytune.cli.ending import BAD_INPUT, INTERRUPTED, SWEEP_FAILED
from xaytune.cli.options import say
from xaytune.errors import (
    ClusterError,
    DashboardError,
    JournalError,
    PicturesError,
    RemoteError,
    SessionError,
    SpecError,
    StorageError,
)

_GROUPS = {
    "Start": ("init", "check", "try", "simulate"),
    "Run": ("run", "resume"),
    "Look": ("list", "status", "best", "why", "report", "compare", "export", "dashboard"),
    "On a cluster": ("launch", "attach", "stop"),
    "Shell": ("completion",),
}
_EXAMPLES = """\b
Examples:
  xaytune init --kind loop             writes a recipe and a spec to start from
  xaytune try sweep.yaml --set lr=0.1  trains one configuration here; a debugger works
  xaytune run sweep.yaml               runs the sweep, and shows it meanwhile
  xaytune best sweep                   shows the best trial and its checkpoint
  xaytune why sweep 7                  tells what happened to trial 7
  xaytune report sweep                 writes one HTML file that works offline
"""


class _Commands(click.Group):
    """Turns what is wrong with the input into one message, and interrupts into their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # characters that a terminal lacks decide nothing
        try:
            return super().invoke(ctx)
        except (SpecError, JournalError, SessionError, ClusterError) as error:
            say(str(error), err=True)
            ctx.exit(BAD_INPUT)
        except RemoteError as error:
            say(f"the storage cannot be reached: {error}", err=True)
            ctx.exit(BAD_INPUT)
        except (StorageError, DashboardError, PicturesError) as error:
            say(str(error), err=True)
            ctx.exit(SWEEP_FAILED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for heading, names in _GROUPS.items():
            with formatter.section(heading):
                helps = [self.commands[name].get_short_help_str(formatter.width - width - 6) for name in names]
                formatter.write_dl([(name.ljust(width), text) for name, text in zip(names, helps, strict=True)])


@click.group(cls=_Commands, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xaytune")
def main() -> None:
    """Tunes hyperparameters of PyTorch trainers on Ray.

    Exit codes: 0 done, 1 the sweep failed, 2 bad input, 130 interrupted.
    """


_MODULES = (starting, running, simulating, looking, clusters)
for command in (command for module in _MODULES for command in module.COMMANDS):
    main.add_command(command)

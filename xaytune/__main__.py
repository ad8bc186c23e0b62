"""``python -m xaytune``, and ``xaytune``: the command line."""

from __future__ import annotations

import signal
import sys

from xaytune.interrupts import interrupt


def main() -> None:
    """Runs the command line, which may be interrupted at any time, by SIGTERM too."""
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # shells ignore it for what they run behind
        signal.signal(signal.SIGINT, interrupt)
    try:
        from xaytune.cli.main import main as command_line
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()

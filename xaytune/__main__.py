"""``python -m xaytune``, and ``xaytune``: the command line."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line, which may be interrupted at any time, by SIGTERM too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from xaytune.cli.main import main as command_line
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()

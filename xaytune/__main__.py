"""``python -m xaytune``: the command line."""

from xaytune.cli.main import main

main()

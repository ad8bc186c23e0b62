"""``python -m tests.campaigns NAME [--runs N] [--seed S]``: random tests, longer than a suite has time for."""

from __future__ import annotations

import argparse
import importlib
import logging
import secrets

# Where each campaign is: a function of the number of runs and a seed, which raises at the first failure.
CAMPAIGNS = {
    "cuts": "tests.simulation.test_simulation:campaign",
    "kills": "tests.campaigns.kills:run",
    "fused": "tests.campaigns.fused:run",
    "fused-depart": "tests.campaigns.fused_sweeps:depart",
    "fused-kills": "tests.campaigns.fused_sweeps:kills",
    "misbehaviour": "tests.campaigns.misbehaviour:run",
    "never-stalls": "tests.search.curves.test_gates:campaign",
    "recipes": "tests.campaigns.recipes:run",
    "spaces": "tests.campaigns.spaces:run",
    "trainer": "tests.trainer.disturbances:campaign",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, help="drawn, and printed, if it is not given")
    options = parser.parse_args()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    module, function = CAMPAIGNS[options.name].split(":")
    print(f"{options.name}: {options.runs} runs, seed {seed}", flush=True)
    logging.disable(logging.WARNING)
    getattr(importlib.import_module(module), function)(options.runs, seed)
    print(f"{options.name}: {options.runs} runs passed")


if __name__ == "__main__":
    main()

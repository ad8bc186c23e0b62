"""``python -m tests.benchmarks [PART ...]``: the figures of the page on costs, as ratios within one run.

``python -m tests.benchmarks search`` compares searches instead; it has options of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import fused as fused_trials
from tests.benchmarks import fused_models as models
from tests.benchmarks import workload
from tests.benchmarks.search import command as search

CORES = os.cpu_count() or 1
PARTS = (
    "reporting",
    "sweeps",
    "first-step",
    "next-trial",
    "results",
    "driver",
    "fused",
    "fused-mixed",
    "fused-models",
)


def main() -> None:
    if sys.argv[1:2] == ["search"]:
        search.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; medians are printed")
    parser.add_argument("--trials", type=int, nargs="+", default=[60, 400], help="sizes of the sweeps")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    scratch = Path(tempfile.mkdtemp(prefix="xb", dir="/tmp"))
    os.environ["RAY_TMPDIR"] = str(scratch / "ray")
    (scratch / "ray").mkdir()
    try:
        for part in options.parts or PARTS:
            print(f"\n== {part}", flush=True)
            {
                "reporting": reporting,
                "sweeps": sweeps,
                "first-step": first_step,
                "next-trial": next_trial,
                "results": results_a_second,
                "driver": driver_cost,
                "fused": fused,
                "fused-mixed": fused_mixed,
                "fused-models": fused_models,
            }[part](options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def fused(options: argparse.Namespace, scratch: Path) -> None:
    """What training trials fused gains: the numeric core, and whole sweeps; and how far a search looks ahead."""
    fused_trials.ahead(5, scratch)
    fused_trials.core(options.runs)
    for trials in options.trials:
        fused_trials.sweeps(options.runs, trials, scratch)


def fused_mixed(options: argparse.Namespace, scratch: Path) -> None:
    """What it gains where models are of four shapes, and where each trial has a handler after each step."""
    for trials in options.trials:
        fused_trials.mixed_sweeps(options.runs, trials, scratch)


def fused_models(options: argparse.Namespace, scratch: Path) -> None:
    """What three models reach fused, on a GPU if there is one; on a CPU the smallest of them."""
    import torch

    torch.set_num_threads(1)
    if torch.cuda.is_available():
        models.compare(torch.device("cuda"), list(models.MODELS), (8, 32, 128), (1, 4, 8, 14), 500)
    else:
        models.compare(torch.device("cpu"), ("mlp",), (8, 32, 128), (1, CORES), 200)


def reporting(options: argparse.Namespace, scratch: Path) -> None:
    """(a) What reporting every step costs the loop."""
    from tests.benchmarks.peers import ray_report_rate

    _start_ray()
    empty = [
        _xaytune("empty_steps", {"steps": {"grid": [200_000]}}, scratch, "reported") for _ in range(options.runs)
    ]
    reported = statistics.median(trial.metrics["reported"] for trial in empty)
    silent = statistics.median(trial.metrics["silent"] for trial in empty)
    peer = statistics.median(ray_report_rate(1000, _fresh(scratch)) for _ in range(options.runs))
    print(f"empty step, 4 metrics: {reported:,.0f} steps/s reported, {silent:,.0f} with no reporter")
    print(f"tune.report every step: {peer:,.0f} steps/s; xaytune is {reported / peer:,.0f} times that")
    space = {"turns": {"grid": [6]}}
    loops = [_xaytune("digits_steps", space, scratch, "reported") for _ in range(options.runs)]
    slower = [trial.metrics["reported"] / trial.metrics["silent"] - 1 for trial in loops]
    print(f"digits MLP loop: reporting every step makes it {statistics.median(slower):.2%} slower", flush=True)
    _stop_ray()


def sweeps(options: argparse.Namespace, scratch: Path) -> None:
    """(b) Whole sweeps, from the command to its end, the same configurations for all."""
    for trials in options.trials:
        names = ["xaytune", "optuna", "ray_reuse", "ray_reuse_every_step"] + ["ray_default"] * (trials <= 60)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for run in range(options.runs):
            for name in names:
                if run == 0 or name not in ("ray_default", "ray_reuse_every_step"):  # these take minutes
                    taken[name].append(_timed(name, trials, scratch))
        own = statistics.median(seconds for seconds, _ in taken["xaytune"])
        for name, runs in taken.items():
            seconds = statistics.median(run[0] for run in runs)
            share = statistics.median(run[1] for run in runs)
            print(
                f"{trials:4} trials  {name:22} {seconds:7.1f} s  {seconds / own:6.2f} times xaytune's, "
                f"{share:.0%} of the core time in training steps",
                flush=True,
            )


def first_step(options: argparse.Namespace, scratch: Path) -> None:
    """(c) From the command to the first training step."""
    taken: dict[str, list[float]] = {"xaytune": [], "ray": []}
    for _ in range(max(5, options.runs)):
        for name, seconds in taken.items():
            folder = _fresh(scratch)
            noted = folder / "first"
            if name == "xaytune":
                space = {"number": {"grid": [0]}, "first_step": str(noted)}
                command = _run_command("notes_its_start", space, folder, metric="loss")
            else:
                command = [sys.executable, "-m", "tests.benchmarks.plain_ray", str(noted), str(folder)]
            began = time.time()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(workload.noted(noted)[0] - began)
    own, peer = (statistics.median(seconds) for seconds in taken.values())
    print(
        f"first step after {own:.2f} s; plain Ray Tune script {peer:.2f} s: {peer / own:.2f} times that",
        flush=True,
    )


def next_trial(options: argparse.Namespace, scratch: Path) -> None:
    """(d) From a stop decision to the next trial's first step."""
    from xaytune.records.journal import FILE_NAME, read_events

    folder = _fresh(scratch)
    command = _run_command(
        "first_step",
        {"number": {"grid": list(range(100))}},
        folder,
        scheduler={"algorithm": "asha", "max_t": 4, "reduction_factor": 2},
        max_concurrent_trials=1,
    )
    subprocess.run(command, check=True, capture_output=True)
    events = list(read_events(folder / "sweep" / FILE_NAME))
    stops = {event["trial"]: event["t"] for event in events if event["event"] == "stop"}
    begins = {event["trial"]: event["metrics"]["began"] for event in events if event["event"] == "end"}
    waits = [begins[trial + 1] - stop for trial, stop in stops.items() if trial + 1 in begins]
    median, slow = statistics.median(waits) * 1e3, statistics.quantiles(waits, n=10)[-1] * 1e3
    print(f"{len(waits)} stops: median {median:.1f} ms, 9 of 10 within {slow:.1f} ms", flush=True)


def results_a_second(options: argparse.Namespace, scratch: Path) -> None:
    """(e) Decision points a second that the driver takes."""
    for concurrent in (8, 64):
        folder, decisions = _fresh(scratch), 4000 // concurrent
        command = _run_command(
            "decides_often",
            {"number": {"grid": list(range(concurrent))}, "decisions": decisions},
            folder,
            scheduler={"algorithm": "median", "grace_period": 10**6},
            resources_per_trial={"cpu": CORES / concurrent},
        )
        subprocess.run(command, check=True, capture_output=True)
        from xaytune.records.journal import FILE_NAME, read_events

        times = sorted(e["t"] for e in read_events(folder / "sweep" / FILE_NAME) if e["event"] == "result")
        middle = times[len(times) // 4 : -len(times) // 4]
        print(f"{concurrent} trials: {len(middle) / (middle[-1] - middle[0]):.0f} results a second", flush=True)


def driver_cost(options: argparse.Namespace, scratch: Path) -> None:
    """(f) What a trial costs the driver, over 1,000 of them."""
    from xaytune.ray_tune.sweep import Sweep
    from xaytune.records.state import SweepState

    _start_ray()
    cpu, memory = [], []

    def listen(sweep: SweepState, event: dict[str, Any]) -> None:
        if event["event"] == "end":
            cpu.append(time.process_time())
            memory.append(_resident())

    Sweep(
        "tests.benchmarks.recipes:first_step",
        metric="accuracy",
        mode="max",
        space={"number": {"grid": list(range(1000))}},
        scheduler={"algorithm": "asha", "max_t": 4, "reduction_factor": 2},
    ).run(storage=_fresh(scratch), listener=listen)
    first, last = cpu[110] - cpu[10], cpu[-1] - cpu[-101]
    print(f"driver CPU a trial: {(cpu[-1] - cpu[10]) / 989 * 1e3:.1f} ms over 1,000 trials")
    print(
        f"  the first hundred {first * 10:.1f} ms, the last hundred {last * 10:.1f} ms: {last / first:.2f} times"
    )
    print(f"driver memory a trial: {(memory[-1] - memory[110]) / 889 / 1024:.1f} KiB", flush=True)
    _stop_ray()


def _start_ray() -> None:
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def _xaytune(recipe: str, space: dict[str, Any], scratch: Path, metric: str) -> Any:
    """Runs a sweep of one trial in this process, and returns the trial."""
    from xaytune.ray_tune.sweep import Sweep

    sweep = Sweep(f"tests.benchmarks.recipes:{recipe}", metric=metric, mode="max", space=space)
    return sweep.run(storage=_fresh(scratch)).trials[0]


def _run_command(
    recipe: str, space: dict[str, Any], folder: Path, metric: str = "accuracy", **options: Any
) -> list[str]:
    spec = folder / "spec.yaml"
    reference = f"tests.benchmarks.recipes:{recipe}"
    # JSON is YAML.
    spec.write_text(json.dumps({"recipe": reference, "metric": metric, "mode": "max", "space": space, **options}))
    return [sys.executable, "-m", "xaytune", "run", str(spec), "--name", "sweep", "--storage", str(folder)]


def _timed(name: str, trials: int, scratch: Path) -> tuple[float, float]:
    """Returns the seconds of a whole sweep, and the share of all cores' time that went into training."""
    folder = _fresh(scratch)
    if name == "xaytune":
        space = {"number": {"grid": list(range(trials))}, "compute_log": str(folder / "compute")}
        scheduler = {"algorithm": "asha", "max_t": workload.MAX_EPOCHS, "reduction_factor": 3}
        setup = "tests.benchmarks.workload:digits"  # the data is loaded once a node
        command = _run_command("digits", space, folder, scheduler=scheduler, setup=setup)
    else:
        command = [sys.executable, "-m", "tests.benchmarks.peers", name, str(trials), str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return seconds, sum(workload.noted(folder / "compute")) / (seconds * CORES)


def _fresh(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=scratch))


def _resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


main()

"""What is recorded, in words: numbers, durations, how trials ended, and the summary of a sweep."""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xaytune.records.journal import Event
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import DEFAULT_STORAGE
from xaytune.records.trial_record import Restart, TrialRecord
from xaytune.report.printing import one_line, printable, shortened
from xaytune.report.terms import Terms, number, value_text
from xaytune.sweep.numbers import trials
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import STEPS

# Schedulers that have gone on without the failed trials: these cannot be resumed.
_NEVER_RETRY_FAILED = ("hyperband", "pbt", "pb2")


def metrics(values: Mapping[Any, Any]) -> str:
    """Writes metrics in one line."""
    return ", ".join(f"{shortened(str(name))} {_metric(value)}" for name, value in values.items())


def _metric(value: Any) -> str:
    return number(float(value)) if isinstance(value, (int, float)) else "-" if value is None else value_text(value)


def duration(seconds: float) -> str:
    """Writes a duration in its two largest units; a short one with a tenth of a second."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def age(seconds: float) -> str:
    """Writes how long ago something was, in one unit."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds / length)) > 0:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def clock(seconds: float) -> str:
    """Writes a time since a beginning: minutes and seconds with a tenth, hours where there are some."""
    minutes, rest = divmod(max(0.0, round(seconds, 1)), 60)
    if minutes < 60:
        return f"{minutes:.0f}:{rest:04.1f}"
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:04.1f}"


def planned(sweep: SweepState) -> str:
    """Writes how many trials a sweep has, or has had so far where only its budget ends it."""
    if sweep.num_trials is None and not sweep.trials:
        return "as many trials as its budget allows"
    return trials(len(sweep.trials) if sweep.num_trials is None else sweep.num_trials)


def finished(sweep: SweepState) -> int:
    """Returns how many trials have finished."""
    return sum(trial.finished for trial in list(sweep.trials.values()))


def share(sweep: SweepState) -> str:
    """Writes how many trials have finished, and of how many where that is known."""
    return share_of(finished(sweep), sweep)


def share_of(ended: int, sweep: SweepState) -> str:
    """Writes the same, where they were counted already."""
    return str(ended) if sweep.num_trials is None else f"{ended}/{sweep.num_trials}"


def listed(numbers: list[int]) -> str:
    """Names trials by number, the first ten of them."""
    shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f"trial {shown}" if len(numbers) == 1 else f"{len(numbers)} trials ({shown})"


def status_word(status: str, sweep: SweepState) -> str:
    """Writes the status of a trial; one that ran when its sweep was lost was cut off."""
    return "cut off" if status == "running" and sweep.state in ("lost", "failed") else status


def counts(sweep: SweepState) -> dict[str, int]:
    """Returns how many trials are in each status, without those that no trial is in."""
    return {status_word(status, sweep): count for status, count in sweep.counts().items() if count}


def tally(sweep: SweepState) -> str:
    """Writes how many trials are in each status."""
    return ", ".join(f"{count} {status}" for status, count in counts(sweep).items())


def ending(trial: TrialRecord, terms: Terms) -> str:
    """Writes how a trial ended, in one line."""
    reason = f": {one_line(trial.reason)}" if trial.reason else ""
    worth = f" (best {terms.worth(trial.value)})" if trial.counted_value is not None else ""
    where = terms.at(epoch=trial.epoch, global_step=trial.global_step)
    return f"trial {trial.number} {trial.status} at {where}{worth}{reason}"


def restarted(failures: Sequence[Event], restarts: Sequence[Restart]) -> str:
    """Writes that trials which have lost a process are restarted: why, from where, and what that costs."""
    numbers = [event["trial"] for event in failures]
    who, verb = (f"trial {numbers[0]}", "it is") if len(numbers) == 1 else (listed(numbers), "they are")
    return f"{who}: {one_line(failures[0]['error'])}; {verb} restarted {restart_text(restarts)}"


def restart_text(restarts: Sequence[Restart]) -> str:
    """Writes where trials are restarted, and what that costs."""
    lost = sum(restart.lost for restart in restarts)
    again = f"at least {STEPS.count(lost)} {'is' if lost == 1 else 'are'} trained again" if lost else ""
    if not any(restart.step for restart in restarts):
        it = "it" if len(restarts) == 1 else "them"
        return f"from the start: no checkpoint of {it} had been recorded" + (f", {again}" if again else "")
    where = f"from step {restarts[0].step}" if len(restarts) == 1 else "from their newest checkpoints"
    return where + (f"; {again}" if again else "")


def cheaper_means(reason: str) -> str:
    """Writes that decisions are made by cheaper means, and why."""
    return f"decided by cheaper means: {one_line(reason)}"


def losses(sweep: SweepState) -> list[str]:
    """Writes what a sweep lost on the way: attempts that lost their processes, and steps trained again."""
    lines = [cheaper_means(sweep.fell_back)] if sweep.fell_back is not None else []
    again = [trial for trial in list(sweep.trials.values()) if trial.trained_again]
    if again:
        restarts = sum(len(trial.restarts) for trial in list(sweep.trials.values()))
        times = "a trial was restarted" if restarts == 1 else f"{restarts} restarts"
        lost = sum(trial.trained_again for trial in again)
        lines.append(f"{times}: at least {STEPS.count(lost)} {'was' if lost == 1 else 'were'} trained again")
    if not all(trial.has_saved for trial in again):
        lines.append(
            "there was no checkpoint to resume from: a Trainer writes them, and a loop of your own does once it "
            "says what to keep: trial.keep(model=model, optimizer=optimizer)"
        )
    return lines


def best(sweep: SweepState) -> str:
    """Writes the best trial of a sweep that has one: its value, its configuration and its checkpoint."""
    trial = sweep.best
    if trial is None or trial.best is None:
        raise ValueError(f"{sweep.name} has no best trial: {sweep.why_no_best}")
    terms = Terms(sweep)
    where = terms.at(epoch=trial.best.epoch, global_step=trial.best.global_step)
    lines = [
        f"best: trial {trial.number}, {terms.worth(trial.value)} at {where}",
        *terms.lines(trial.best_config),
        f"  checkpoint  {checkpoint_text(trial)}",
        *(f"  {line}" for line in checkpoint_advice(trial)),
    ]
    better = [t.number for t in list(sweep.trials.values()) if _failed_above(t, trial.value, sweep.objective)]
    if better:
        lines.append(f"  {listed(better)} reached a better value, but failed: that does not count")
    return "\n".join(lines)


def _failed_above(trial: TrialRecord, value: float | None, objective: Objective) -> bool:
    """Whether a trial reached a better value than the best one before it failed."""
    return trial.status == "failed" and trial.value is not None and objective.is_better(trial.value, value)


def checkpoint_text(trial: TrialRecord) -> str:
    """Writes the path of the checkpoint to use, and of which step it is where that is not the best one."""
    if trial.checkpoint is None:
        return "none was written"
    path = path_text(trial.checkpoint)
    return f"{path} (the newest, of step {trial.checkpoint_step})" if _misses_best(trial) else path


def path_text(path: str) -> str:
    """Writes a path, from the current folder if it is in there."""
    return path.removeprefix(f"{os.getcwd()}/")


def checkpoint_advice(trial: TrialRecord) -> list[str]:
    """Says why there is no checkpoint of the best value, where there is none, and what to do."""
    if trial.best is None or trial.checkpoint is None or not _misses_best(trial):
        return []
    if trial.best_weights_gone:
        at = f"step {trial.best.global_step}"
        return [f"the best value was at {at}; then the trial took over another one, and those weights are gone"]
    return [
        f"the best value was at step {trial.best.global_step}, where the trial saved no checkpoint of its own.",
        "To keep the best: SaveBest in a Trainer, ModelCheckpoint in Lightning, load_best_model_at_end in",
        'Hugging Face (its checkpoints are in the folder transformers beside), a line with "checkpoint" of',
        "a command that writes lines; in any other loop, write the model itself to trial.checkpoint_dir where",
        "its value is the best so far",
    ]


def _misses_best(trial: TrialRecord) -> bool:
    best = trial.best
    return best is not None and (trial.best_weights_gone or trial.checkpoint_step != best.global_step)


def summary(sweep: SweepState, resume: str | None = None) -> str:
    """Writes what a sweep found: its state, its trials, what it lost, the best trial, and why others failed.

    Args:
        sweep: The sweep.
        resume: What follows ``xaytune resume`` to continue it; by default its name, or its folder.
    """
    took = f" in {duration(sweep.ran_s)}" if sweep.ended else ""
    lines = [f"{sweep.name}: {sweep.state}{took}, {planned(sweep)}: {tally(sweep)}"]
    if sweep.reason:
        lines.append(f"  {sweep.reason}")
    if fused := [trial.fused for trial in list(sweep.trials.values()) if trial.fused]:
        lines.append(
            f"  {len(fused)} of them trained fused, {statistics.median_high(fused)} at once in the median"
        )
    lines += [f"  {line}" for line in losses(sweep)]
    if sweep.best is not None:
        lines.append(best(sweep))
    lines += _failures(sweep, resume)
    unfinished = sweep.num_trials is None or not sweep.all_finished
    if sweep.state in ("interrupted", "lost") or (sweep.state == "failed" and unfinished):
        lines.append(f"to continue it: {_resume(sweep, resume)}")
    return printable("\n".join(lines))


def status(sweep: SweepState, resume: str | None = None) -> str:
    """Writes what a sweep found, as :func:`summary`, and what was noted while it ran."""
    return "\n".join([summary(sweep, resume), *(printable(f"note: {note}") for note in list(sweep.notes))])


def nothing_left(sweep: SweepState) -> str:
    """Writes that nothing is left to do of a sweep, and how it gets more trials where nothing else limits them."""
    said = "nothing is left to do"
    drawn = sweep.num_trials == sweep.spec.get("num_samples")  # a grid multiplies them
    budget = any((sweep.spec.get("budget") or {}).values())
    if any((trial.reason or "").startswith("the budget of ") for trial in list(sweep.trials.values())):
        return f"{said}: what the budget has stopped is over; a larger --num-samples and budget add trials"
    if not drawn or budget or sweep.reason or sweep.simulated:
        return said
    return f"{said}; --num-samples N adds trials, to N in all"


def _resume(sweep: SweepState, given: str | None, *, errored: bool = False) -> str:
    """What resumes a sweep: the command or, from the script or notebook that has its recipe, the call."""
    address = path_text(sweep.address)
    name = sweep.name if address == f"{DEFAULT_STORAGE}/{sweep.name}" else address
    if str(sweep.spec.get("recipe")).startswith("__main__:"):
        return f"xaytune.resume({name!r}{', resume_errored=True' if errored else ''})"
    return f"xaytune resume {given or shlex.quote(name)}{' --resume-errored' if errored else ''}"


def _failures(sweep: SweepState, resume: str | None) -> list[str]:
    failed = [trial for trial in list(sweep.trials.values()) if trial.status == "failed"]
    if not failed:
        return []
    # Of a lost process there is no traceback, only Ray's guesses: they are in the journal.
    error = failed[0].error or ""
    shown = error if "Traceback" in error else str(failed[0].reason)
    first = f"; the first, trial {failed[0].number}, with" if len(failed) > 1 else ", with"
    heading = f"failed: {listed([trial.number for trial in failed])}{first}"
    lines = [heading, *(f"  {line}" for line in shown.rstrip().splitlines())]
    whole = sweep.state == "completed" and sweep.reason is None  # a budget that is spent resumes none
    none_left = sweep.state == "failed" and sweep.all_finished
    can_retry = sweep.spec["scheduler"].get("algorithm") not in _NEVER_RETRY_FAILED or not sweep.trained
    if (whole or none_left) and can_retry:
        which = "them" if len(failed) > 1 else "it"
        again = _resume(sweep, resume, errored=whole or sweep.trained)
        lines.append(f"  to resume {which} once that is mended: {again}")
    return lines

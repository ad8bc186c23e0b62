from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import xaytune
from tests.models import checkpoints, dataset, loader, make_trainer, weights
from xaytune.errors import CheckpointError
from xaytune.trainer import checkpoint, checkpoint_files
from xaytune.trainer.callbacks import Event, TrainState
from xaytune.trainer.handlers import SaveCheckpoint
from xaytune.trainer.trainer import Trainer

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "evaluated": {"eval_loader": loader(shuffle=True)},
    "half precision": {"precision": "fp16"},
}


def resumed_elsewhere(folders: dict[Path, str]) -> list[torch.Tensor]:
    """The final weights of runs that another process takes up from the newest checkpoints of folders."""
    program = (
        "import sys, torch\n"
        "from tests.models import weights\n"
        "from tests.trainer.test_checkpoints import OPTIONS, scheduled\n"
        "for folder, kind in zip(sys.argv[1::2], sys.argv[2::2], strict=True):\n"
        "    trainer = scheduled(seed=99, checkpoint_dir=folder, **OPTIONS[kind])\n"
        "    trainer.fit()\n"
        "    torch.save(weights(trainer), folder + '/weights')\n"
    )
    arguments = [argument for folder, kind in folders.items() for argument in (str(folder), kind)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    return [torch.load(folder / "weights") for folder in folders]


def flip_a_bit_of_a_tensor(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        stored = archive.read(largest)
    data = path.read_bytes()
    at = data.index(stored) + len(stored) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def scheduled(**options: Any) -> Trainer:
    return make_trainer(schedule=lambda optimizer: StepLR(optimizer, 1, gamma=0.5), **options)


@pytest.mark.slow
def test_a_run_taken_up_in_a_new_process_ends_with_the_same_bits(tmp_path: Path) -> None:
    folders: dict[Path, str] = {}
    straight: dict[str, torch.Tensor] = {}
    for kind, options in OPTIONS.items():
        undisturbed = scheduled(**options)
        undisturbed.fit()
        straight[kind] = weights(undisturbed)
        for steps in (1, 4, 6):  # the last of them is the end of an epoch
            folder = tmp_path / f"{kind} {steps}"
            cut = scheduled(checkpoint_dir=folder, **options)
            cut.callbacks.on("step_end")(
                lambda state, steps=steps: state.global_step == steps and state.stop_training()
            )
            assert cut.fit().global_step == steps
            folders[folder] = kind
        cut = scheduled(checkpoint_dir=tmp_path / kind, **options)
        cut.callbacks.on("epoch_end")(TrainState.stop_training)
        cut.fit()
        folders[tmp_path / kind] = kind
    resumed = resumed_elsewhere(folders)
    assert [
        at.name
        for at, found in zip(folders, resumed, strict=True)
        if not torch.equal(found, straight[folders[at]])
    ] == []


def test_a_resumed_run_starts_where_it_was_and_counts_on(tmp_path: Path) -> None:
    cut = make_trainer(checkpoint_dir=tmp_path)
    cut.callbacks.on("step_end")(lambda state: state.global_step == 8 and state.stop_training())
    cut.fit()
    again = make_trainer(checkpoint_dir=tmp_path)
    starts: list[tuple[int, int, int]] = []
    again.callbacks.on("train_start")(lambda state: starts.append((state.epoch, state.step, state.global_step)))
    state = again.fit()
    assert starts == [(1, 2, 8)]
    assert (state.epoch, state.step, state.global_step) == (2, 6, 18)


def test_a_finished_run_trains_no_step_more_when_it_is_run_again(tmp_path: Path) -> None:
    first = make_trainer(checkpoint_dir=tmp_path)
    first.fit()
    again = make_trainer(checkpoint_dir=tmp_path)
    assert again.fit().global_step == 18
    assert torch.equal(weights(first), weights(again))


def test_resume_false_starts_anew(tmp_path: Path) -> None:
    make_trainer(checkpoint_dir=tmp_path).fit()
    again = make_trainer(checkpoint_dir=tmp_path, resume=False)
    starts: list[int] = []
    again.callbacks.on("train_start")(lambda state: starts.append(state.global_step))
    again.fit()
    assert starts == [0]


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(checkpoint_dir=tmp_path)
    trainer.callbacks.on("step_end", every=6)(SaveCheckpoint(trainer))
    trainer.fit()
    assert checkpoints(tmp_path) == [f"step-{n:08d}.pt" for n in (6, 12, 18)]
    last, middle = tmp_path / "step-00000018.pt", tmp_path / "step-00000012.pt"
    os.truncate(last, last.stat().st_size // 2)
    flip_a_bit_of_a_tensor(middle)

    again = make_trainer(checkpoint_dir=tmp_path)
    starts: list[int] = []
    again.callbacks.on("train_start")(lambda state: starts.append(state.global_step))
    again.fit()
    assert starts == [6]
    assert torch.equal(weights(again), weights(trainer))
    assert "step-00000018.pt" in caplog.text


def test_a_checkpoint_with_any_bit_flipped_is_what_it_was_or_is_noticed_to_be_damaged(tmp_path: Path) -> None:
    path = checkpoint.path_for(tmp_path, 1)
    checkpoint.save({"value": 1}, path)
    whole = path.read_bytes()
    noticed = 0
    for bit in range(7, 8 * len(whole), 72):  # the highest of a byte is where texts break
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        try:
            assert checkpoint.load(path) == {"value": 1}
        except CheckpointError:
            noticed += 1
    assert noticed > 0


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(tmp_path: Path) -> None:
    make_trainer(checkpoint_dir=tmp_path).fit()
    (tmp_path / "step-00000018.pt").write_bytes(b"")
    with pytest.raises(xaytune.CheckpointError, match=r"step-00000018\.pt"):
        make_trainer(checkpoint_dir=tmp_path).fit()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.pt"
    torch.save({"model": pytest.raises}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)


def test_a_save_that_fails_leaves_the_checkpoint_that_was_there(tmp_path: Path) -> None:
    path = checkpoint.path_for(tmp_path, 1)
    checkpoint.save({"value": 1}, path)
    with pytest.raises(TypeError, match=r"the checkpoint\['value'\]\[1\] is of the type function"):
        checkpoint.save({"value": [1, lambda: None]}, path)
    assert checkpoint.load(path) == {"value": 1}
    assert checkpoints(tmp_path) == [path.name]


def test_a_folder_of_another_library_that_cannot_be_added_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "source" / f"{checkpoint_files.MANIFEST}.tmp").mkdir(parents=True)  # where a file is to be written
    with pytest.raises(IsADirectoryError):
        checkpoint_files.add_folder(tmp_path / "source", tmp_path / "checkpoints", 1)
    assert checkpoints(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("event", ["step_end", "eval_end", "epoch_end"])
@pytest.mark.parametrize("eval_every", ["epoch", 5])
@pytest.mark.parametrize("crash_at", [5, 6, 7, 10, 12])
def test_a_run_that_crashed_goes_on_as_if_it_had_not(
    tmp_path: Path, event: Event, eval_every: Any, crash_at: int
) -> None:
    def build(seen: list[tuple[str, int]], **options: Any) -> Trainer:
        trainer = scheduled(eval_loader=loader(), eval_every=eval_every, **options)
        for heard in ("eval_end", "epoch_end"):
            trainer.callbacks.on(heard)(lambda state, heard=heard: seen.append((heard, state.global_step)))
        return trainer

    undisturbed: list[tuple[str, int]] = []
    straight = build(undisturbed)
    straight.fit()

    seen: list[tuple[str, int]] = []
    crashing = build(seen, checkpoint_dir=tmp_path)
    crashing.callbacks.on(event)(SaveCheckpoint(crashing))

    @crashing.callbacks.on("step_start")
    def crash(state: TrainState) -> None:
        if state.global_step == crash_at:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crashing.fit()
    resumed = build(seen, checkpoint_dir=tmp_path, seed=99 if checkpoints(tmp_path) else 0)
    resumed.fit()
    assert torch.equal(weights(resumed), weights(straight))
    assert resumed.state.metrics["learning_rate"] == straight.state.metrics["learning_rate"]
    assert set(seen) == set(undisturbed)


def test_a_sampler_within_a_batch_sampler_comes_back_exactly(tmp_path: Path) -> None:
    def batches() -> DataLoader[Any]:
        sampler = RandomSampler(dataset(), generator=torch.Generator().manual_seed(5))
        return DataLoader(dataset(), batch_sampler=BatchSampler(sampler, 8, drop_last=False))

    straight = make_trainer(train_loader=batches())
    straight.fit()
    cut = make_trainer(train_loader=batches(), checkpoint_dir=tmp_path)
    cut.callbacks.on("step_end")(lambda state: state.global_step == 8 and state.stop_training())
    cut.fit()
    resumed = make_trainer(train_loader=batches(), checkpoint_dir=tmp_path)
    resumed.fit()
    assert torch.equal(weights(resumed), weights(straight))

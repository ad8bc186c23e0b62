"""What a user keeps is saved and restored, whatever way it has of telling its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xaytune.trainer import checkpoint
from xaytune.trainer.kept import Kept


class Buffer:
    """Something that can only write files."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def save(self, folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "words.txt").write_text("\n".join(self.words))
        (folder / "empty").touch()

    def load(self, folder: Path) -> None:
        assert (folder / "empty").read_bytes() == b""
        self.words = (folder / "deep" / "words.txt").read_text().split("\n")


def test_kept_things_come_back_from_a_checkpoint_with_their_state(tmp_path: Path) -> None:
    average, buffer = nn.Linear(2, 2), Buffer(["a", "b"])
    path = tmp_path / "step-00000001.pt"
    checkpoint.save({"kept": Kept({"average": average, "buffer": buffer}).state_dict()}, path)
    again, other = nn.Linear(2, 2), Buffer([])
    Kept({"average": again, "buffer": other}).load_state_dict(checkpoint.load(path)["kept"])
    assert torch.equal(again.weight, average.weight)
    assert other.words == ["a", "b"]


@pytest.mark.parametrize("thing", [3, {"a": 1}, nn.Linear])
def test_what_has_no_state_to_save_is_refused_by_name(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"'mine' cannot be kept: .*state_dict"):
        Kept({"mine": thing})


def test_a_checkpoint_without_the_state_of_a_kept_thing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no state of 'average'.*it has 'other'"):
        Kept({"average": nn.Linear(2, 2)}).load_state_dict({"other": {}})

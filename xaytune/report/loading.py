"""The lines of Python that load a checkpoint, by what wrote it."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

# What the pickles of a checkpoint of Lightning, and of a loop of one's own, hold.
_LIGHTNING, _OWN_LOOP = b"pytorch-lightning_version", b"loop of one's own"


def lines_to_load(checkpoint: str | None) -> list[str]:
    """Returns the lines that load the model of a checkpoint.

    Args:
        checkpoint: Its path, a file or a folder.

    Returns:
        For a model, or Lightning's module, that is made as it was for its training; none for what cannot be read
        here, or was written by something unknown.
    """
    if checkpoint is None:
        return []
    path = Path(checkpoint)
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError):
        return []


def _of_file(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = archive.read(pickled)
    if _LIGHTNING in content:
        return [
            "import torch",
            f"saved = torch.load({str(path)!r}, weights_only=False)",
            'module.load_state_dict(saved["state_dict"])',
        ]
    if _OWN_LOOP in content:
        return [
            "from xaytune.trainer import checkpoint, kept",
            f"saved = checkpoint.load({str(path)!r})",
            *(f'kept.restore({name}, saved["kept"][{json.dumps(name)}])' for name in _kept_models(content)),
        ]
    return [
        "from xaytune.trainer import checkpoint",
        f"saved = checkpoint.load({str(path)!r})",
        'model.load_state_dict(saved["model"])',
    ]


def _of_folder(path: Path) -> list[str]:
    if (path / "written").is_dir():  # by the program of a command
        (written,) = (path / "written").iterdir()
        return [f"saved = {str(written)!r}  # as the program wrote it"]
    if (path / "adapter_config.json").exists():
        return ["from peft import PeftModel", f"model = PeftModel.from_pretrained(model, {str(path)!r})"]
    if not (path / "config.json").exists():
        return []
    (name,) = json.loads((path / "config.json").read_text())["architectures"]
    imported = [f"from transformers import {name}"] if _is_of_transformers(name) else []  # else the program has it
    return [*imported, f"model = {name}.from_pretrained({str(path)!r})"]


def _is_of_transformers(name: str) -> bool:
    try:
        return name in dir(importlib.import_module("transformers"))
    except ImportError:
        return True  # it was installed where the model was trained


def _kept_models(pickled: bytes) -> list[str]:
    """Returns the names of the modules among what a loop kept; those of all, where none is known to be one."""
    kept = _Outline(io.BytesIO(pickled)).load()["kept"]
    # What torch's modules return is an OrderedDict; optimizers and schedulers return dicts.
    modules = [name for name, saved in kept.items() if isinstance(saved.get("state"), OrderedDict)]
    return modules or list(kept)


class _Outline(pickle.Unpickler):
    """Reads the containers of a pickle alone: nothing in it is imported or run, and tensors are left out."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if name == "OrderedDict" else _LeftOut

    def persistent_load(self, pid: Any) -> None:
        return None


class _LeftOut:
    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

"""Commands to start with: ``init`` writes a recipe and a spec, ``completion`` what a shell completes by."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from xaytune.cli.options import say

_TEMPLATES = Path(__file__).parent / "templates"
_SPEC = "spec.yaml"
# What trains is a recipe of the spec, but for the kind that is a script of its own.
_RECIPE, _COMMAND = "recipe: recipe:train\n", "command: python train.py --lr {lr} --hidden {hidden}\n"
# What each kind needs beside xaytune.
_KINDS = {
    "trainer": None,
    "loop": None,
    "lightning": "pip install 'xaytune[lightning]'",
    "transformers": "pip install 'xaytune[transformers]'",
    "command": None,
}


@click.command(epilog="Example: xaytune init digits --kind loop && cd digits && xaytune try sweep.yaml")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option(
    "--kind",
    type=click.Choice(list(_KINDS)),
    default="trainer",
    show_default=True,
    help="What trains: xaytune's Trainer, a loop of your own, Lightning, Hugging Face, or a script with options.",
)
def init(folder: Path, kind: str) -> None:
    """Writes a recipe and a spec to start from.

    They are written to FOLDER, by default the current one. No file is overwritten.
    """
    spec, program = (_TEMPLATES / _SPEC).read_text(), "recipe.py"
    if kind == "command":
        spec, program = spec.replace(_RECIPE, _COMMAND), "train.py"
    files = {program: (_TEMPLATES / f"{kind}.py.txt").read_text(), "sweep.yaml": spec}
    taken = [str(folder / name) for name in files if (folder / name).exists()]
    if taken:
        raise click.UsageError(f"{' and '.join(taken)} would be overwritten: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content)
            say(str(folder / name))
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror}; name another folder") from None
    enter = [] if folder == Path() else [f"cd {shlex.quote(str(folder))}"]
    say("next:")
    for command in (*filter(None, [_KINDS[kind]]), *enter, "xaytune try sweep.yaml", "xaytune run sweep.yaml"):
        say(f"  {command}")


@click.command(epilog="Example: xaytune completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints the completion script for a SHELL.

    The script completes commands, options, files and names of sweeps.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "xaytune", "_XAYTUNE_COMPLETE").source())


COMMANDS = (init, completion)

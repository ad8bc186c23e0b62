"""A loop of one's own: the run of a loop that stays the user's, its place, and its checkpoints."""

from xaytune.trainer.own.loop import OwnLoop

__all__ = ["OwnLoop"]

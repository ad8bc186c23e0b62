"""Hugging Face: schedules that the Trainer steps after each evaluation, be it one that only the trial needs."""

from __future__ import annotations

from typing import Any, Final

from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import optimization

__all__ = ["leave_out_next_step"]

_STEPPED_BY_EVALUATIONS: Final = (ReduceLROnPlateau, getattr(optimization, "GreedyLR", ReduceLROnPlateau))


def leave_out_next_step(scheduler: Any) -> None:
    """Has a schedule by evaluations leave out the step that the Trainer takes next, after this evaluation."""
    if not isinstance(scheduler, _STEPPED_BY_EVALUATIONS):
        return
    own = vars(scheduler)  # which is saved with it: nothing of this may stay

    def leave_out(*_: Any, **__: Any) -> None:
        del own["step"]

    own["step"] = leave_out

"""Fused training: many runs of one shape, trained by one program.

A small model does not fill a device: nearly all of its step is Python and the launching of kernels. Runs whose
models, optimizers and losses are the same but for their numbers take their steps at once: their parameters are
stacked, and one program (``torch.vmap``) trains all of them. Each has its own Trainer, callbacks, state,
schedules, random numbers, checkpoints and stops. What cannot be fused trains alone, and the reason is told.
"""

from xaytune.trainer.fused.fit import fit_fused

__all__ = ["fit_fused"]

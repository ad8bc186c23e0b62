"""Fused training: many runs of one shape, trained by one program.

A small model does not fill a device: nearly all of its step is Python and the launching of kernels. Runs whose
models, optimizers and losses are the same but for their numbers take their steps at once: their parameters are
stacked, and one program (``torch.vmap``) trains all of them. Each has its own Trainer, callbacks, state,
schedules, random numbers, checkpoints and stops. What cannot be fused trains alone, and the reason is told.

`fit_fused`, and the process of many trials, drive the loops of the runs, and give a `Fusion` what these ask for.
`shape` and `keys` tell which runs are alike; `held` refuses runs that share what training changes. `shapes` makes
each run a `Member` of the `Group` of its shape, and tells why it is in none. A group keeps a row of numbers for
each member (`rows`), runs the passes (`program`, `dropout`), and takes the optimizer steps (`update`). Some steps
are first taken alone, to compare (`checks`); `timing` measures whether fusing pays; `learned` keeps what both
found, for later groups of the shape. `states` gives each member its random states.
"""

from xaytune.trainer.fused.fit import fit_fused

__all__ = ["fit_fused"]

"""How a system continues held-out prompts: the same seeds for every system, so that systems are compared in pairs."""

from collections.abc import Callable
from functools import partial

import polars as pl

from stages.run import Run


def held_out_draw(run: Run, *, best_of: int = 1, temperature_scale: float = 1.0) -> Callable[..., pl.DataFrame]:
    """Return a function of prompts and a model: `best_of` times as many draws a prompt as are evaluated.

    The first draws are those of `best_of=1`.
    """
    from alignslm.lm.rows import sample_continuations  # seconds to import, and not every system needs it

    params = run.params
    changed = {
        "num_continuations": params.evaluation.num_continuations * best_of,
        "temperature": temperature_scale * params.sampling.temperature,
    }
    return partial(
        sample_continuations,
        sampling=params.sampling.model_copy(update=changed),
        seed=params.seeds.evaluation,
        purpose="evaluation",
        batch_size=run.execution.rows_at_once,
    )

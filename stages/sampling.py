"""How models draw continuations in stages: those of a round, of held-out prompts, of a guard."""

from collections.abc import Callable
from functools import partial

import polars as pl

from stages.run import Run


def drawing(run: Run, *, seed: int, purpose: str, **changed: float) -> Callable[..., pl.DataFrame]:
    """Return a function of prompts and a model: rows of the continuations table.

    `changed` are values of params.yaml's `sampling` that are not the experiment's; `seed` and `purpose` as in
    `sample_continuations`.
    """
    from alignslm.lm.rows import sample_continuations  # seconds to import, and not every system needs it

    return partial(
        sample_continuations,
        sampling=run.params.sampling.model_copy(update=changed),
        seed=seed,
        purpose=purpose,
        batch_size=run.execution.batch_size,
        batch_invariant=run.execution.batch_invariant,
    )


def held_out_draw(run: Run, *, best_of: int = 1, temperature_scale: float = 1.0) -> Callable[..., pl.DataFrame]:
    """Return a function of held-out prompts and a model: `best_of` times as many draws a prompt as are evaluated.

    The seeds are the same for every system, so that systems are compared in pairs. The first draws are those of
    `best_of=1`.
    """
    params = run.params
    return drawing(
        run,
        seed=params.seeds.evaluation,
        purpose="evaluation",
        num_continuations=params.evaluation.num_continuations * best_of,
        temperature=temperature_scale * params.sampling.temperature,
    )

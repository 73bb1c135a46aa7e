"""Draw N continuations for every training and validation prompt from the previous round's model."""

from functools import partial
from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, agreed, once
from alignslm.lm.checkpoint import load_lm
from alignslm.lm.rows import draw_continuations
from alignslm.progress import stage
from alignslm.shards import map_shards, work_folder
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"continuations@{name}") as log:
        experiment, execution = load_experiment(), load_execution()
        params = experiment.params
        source = layout.checkpoint(params.rounds[name].prev)
        contract = tables.contract_of(tables.PROMPTS, layout.PROMPTS)
        prompts = tables.read(tables.PROMPTS, layout.PROMPTS).filter(pl.col("split").is_in(["train", "valid"]))
        seed = params.seeds.sampling
        lm = agreed(once(load_lm, source, device=execution.device), contract, mine=source, theirs=layout.PROMPTS)
        draw = partial(
            draw_continuations, sampling=params.sampling, seed=seed, purpose=name, batch_rows=execution.rows_at_once
        )
        with work_folder(
            f"continuations-{name}",
            script=__file__,
            params={"sampling": params.sampling, "seed": seed},
            inputs=[layout.PROMPTS, source],
        ) as work:
            frames = map_shards(
                prompts,
                WithModel(lm, draw),
                folder=work / ("strict" if execution.strict else "batched"),
                shard_rows=execution.shard_rows,
                label=f"continuations@{name}",
                pool=pool_of(execution),
            )
            drawn = pl.concat(frames)
            tables.write(drawn, tables.CONTINUATIONS, layout.table("continuations", name), contract)
        log.rows(inputs={"prompts": len(prompts)}, outputs={"continuations": len(drawn)})


if __name__ == "__main__":
    typer.run(main)

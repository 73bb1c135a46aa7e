"""Draw N continuations for every training and validation prompt from the previous round's model."""

from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
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
        lm = load_lm(source, device=execution.device)
        lm.contract.require(contract, mine=str(source), theirs=str(layout.PROMPTS))
        seed = params.seeds.sampling
        with work_folder(
            f"continuations-{name}",
            script=__file__,
            params={"sampling": params.sampling, "seed": seed},
            inputs=[layout.PROMPTS, source],
        ) as work:
            frames = map_shards(
                prompts,
                lambda rows: draw_continuations(
                    rows, lm, params.sampling, seed=seed, purpose=name, batch_rows=execution.batch_rows
                ),
                folder=work,
                shard_rows=execution.shard_rows,
                label=f"continuations@{name}",
            )
            drawn = pl.concat(frames)
            tables.write(drawn, tables.CONTINUATIONS, layout.table("continuations", name), contract)
        log.rows(inputs={"prompts": len(prompts)}, outputs={"continuations": len(drawn)})


if __name__ == "__main__":
    typer.run(main)

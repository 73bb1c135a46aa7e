"""Let the training judge score every transcript of a round; all raw metrics are columns, none is combined yet."""

from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, once
from alignslm.judge import asks_a_server, load_judge
from alignslm.judge.rows import score, stories_of
from alignslm.progress import stage
from alignslm.prompts import read_prompts
from alignslm.shards import map_shards, work_folder
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"scores@{name}") as log:
        experiment, execution = load_experiment(), load_execution()
        choice, config = experiment.params.judge, experiment.judge
        sources = [layout.table("continuations", name), layout.table("transcripts", name), *layout.PROMPT_TABLES]
        stories = stories_of(
            tables.read(tables.CONTINUATIONS, sources[0]),
            tables.read(tables.TRANSCRIPTS, sources[1]),
            read_prompts(*layout.PROMPT_TABLES),
        )
        judge = once(load_judge, config, layout.judge(choice), device=execution.device)
        inputs = [*sources, layout.judge(choice)]
        with work_folder(f"scores-{name}", script=__file__, params={"judge": config}, inputs=inputs) as work:
            shards = map_shards(
                stories,
                WithModel(judge, score),
                folder=work,
                shard_rows=execution.shard_rows,
                label=f"scores@{name}",
                pool=None if asks_a_server(config) else pool_of(execution),
            )
            scored = pl.concat(shards)
            tables.write(scored, tables.SCORES, layout.table("scores", name))
            tables.write(scored.with_columns(judge=pl.lit(choice)), tables.REPLIES, layout.table("replies", name))
        log.rows(
            inputs={"transcripts": len(stories)},
            outputs=dict(scored["status"].value_counts().sort("status").iter_rows()),
        )


if __name__ == "__main__":
    typer.run(main)

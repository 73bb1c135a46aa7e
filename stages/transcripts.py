"""Transcribe every spoken continuation of a round."""

from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.asr import load_asr
from alignslm.asr.rows import transcribe
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, once
from alignslm.progress import stage
from alignslm.shards import map_table, work_folder
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"transcripts@{name}") as log:
        config, execution = load_experiment().asr, load_execution()
        recogniser = once(load_asr, config, layout.ASR, device=execution.device)
        source = layout.speech(name)
        inputs = [source, layout.ASR]
        with work_folder(f"transcripts-{name}", script=__file__, params={"config": config}, inputs=inputs) as work:
            shards = map_table(
                tables.SPEECH,
                source,
                WithModel(recogniser, transcribe),
                folder=work,
                shard_rows=execution.shard_rows,
                label=f"transcripts@{name}",
                pool=pool_of(execution),
            )
            heard = pl.concat(shards)
            tables.write(heard, tables.TRANSCRIPTS, layout.table("transcripts", name))
        outcomes = dict(heard["status"].value_counts().sort("status").iter_rows())
        log.rows(inputs={"spoken": len(heard)}, outputs=outcomes)


if __name__ == "__main__":
    typer.run(main)

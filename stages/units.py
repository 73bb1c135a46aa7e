"""Encode every utterance into deduplicated units and durations."""

import polars as pl

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.encoder import load_encoder
from alignslm.encoder.rows import encode_utterances
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, once
from alignslm.progress import stage
from alignslm.shards import map_table, work_folder
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("units") as log:
        config, execution = load_experiment().encoder, load_execution()
        encoder = once(load_encoder, config, layout.ENCODER, device=execution.device)
        inputs = [layout.UTTERANCES, layout.ENCODER]
        with work_folder("units", script=__file__, params={"config": config}, inputs=inputs) as work:
            shards = map_table(
                tables.UTTERANCES,
                layout.UTTERANCES,
                WithModel(encoder, encode_utterances),
                folder=work,
                shard_rows=execution.shard_rows,
                label="units",
                pool=pool_of(execution),
            )
            encoded = pl.concat(shards)
            tables.write(encoded, tables.ENCODED, layout.UNITS, encoder().contract)
        log.rows(inputs={"utterances": len(encoded)}, outputs={"units": int(encoded["units"].list.len().sum())})


if __name__ == "__main__":
    main()

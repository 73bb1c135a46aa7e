"""Transcribe the prompts whose text the corpus does not tell: those cut in the middle of a word."""

from functools import partial

import polars as pl

from alignslm import tables
from alignslm.asr import load_asr
from alignslm.asr.prompts import transcribe_recorded_of
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, once
from alignslm.progress import stage
from alignslm.shards import map_tasks, work_folder
from stages import layout

INPUTS = [layout.UTTERANCES, layout.PROMPTS, layout.ASR]


def main() -> None:
    """Run the stage."""
    with stage("prompt_transcripts") as log:
        config, execution = load_experiment().asr, load_execution()
        silent = tables.read(tables.PROMPTS, layout.PROMPTS).filter(pl.col("prompt_text").is_null())
        heard = [pl.DataFrame(schema=dict(tables.TRANSCRIPTS.schema))]
        with work_folder("prompt_transcripts", script=__file__, params={"config": config}, inputs=INPUTS) as work:
            if len(silent):
                recogniser = once(load_asr, config, layout.ASR, device=execution.device)
                rows = execution.shard_rows
                hear = partial(transcribe_recorded_of, prompts=silent, side="prompt", shard_rows=rows)
                heard += map_tasks(
                    tables.parts(layout.UTTERANCES),
                    WithModel(recogniser, hear),
                    folder=work,
                    label="prompt_transcripts",
                    pool=pool_of(execution),
                )
            tables.write(pl.concat(heard), tables.TRANSCRIPTS, layout.PROMPT_TRANSCRIPTS)
        log.rows(inputs={"prompts without text": len(silent)}, outputs={"transcripts": sum(map(len, heard))})


if __name__ == "__main__":
    main()

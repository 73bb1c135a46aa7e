"""Transcribe the prompts whose text the corpus does not tell: those cut in the middle of a word."""

from functools import partial

import polars as pl

from alignslm import tables
from alignslm.asr import load_asr
from alignslm.asr.prompts import transcribe_recordings
from alignslm.engine.work import ModelTask
from stages.run import start


def main() -> None:
    """Run the stage."""
    with start(__file__) as run, run.work() as work:
        artifacts, rows = run.artifacts, run.execution.shard_size
        silent = tables.read(tables.PROMPTS, artifacts.prompts).filter(pl.col("prompt_text").is_null())
        transcripts = [pl.DataFrame(schema=dict(tables.TRANSCRIPTS.schema))]
        if len(silent):
            task = partial(transcribe_recordings, prompts=silent, side="prompt", shard_size=rows)
            asr = run.model(load_asr, run.experiment.asr, artifacts.asr)
            transcripts += run.map_tasks(tables.parts(artifacts.utterances), ModelTask(asr, task), work)
        tables.write(pl.concat(transcripts), tables.TRANSCRIPTS, artifacts.prompt_transcripts)
        run.log.rows(inputs={"prompts without text": len(silent)}, outputs={"transcripts": sum(map(len, transcripts))})


if __name__ == "__main__":
    main()

"""Transcribe every spoken continuation of one set of preferences."""

from alignslm import tables
from alignslm.asr import load_asr
from alignslm.asr.rows import transcribe
from alignslm.engine.work import ModelTask
from stages.names import requested_name
from stages.run import outcomes, start


def main(name: str) -> None:
    """Run the stage for one set of preferences."""
    with start(__file__, name) as run, run.work() as work:
        artifacts = run.artifacts
        asr = run.model(load_asr, run.experiment.asr, artifacts.asr)
        transcripts = run.map_table(tables.SPEECH, artifacts.speech(name), ModelTask(asr, transcribe), work)
        tables.write(transcripts, tables.TRANSCRIPTS, artifacts.table("transcripts", name))
        run.log.rows(inputs={"spoken": len(transcripts)}, outputs=outcomes(transcripts))


if __name__ == "__main__":
    main(requested_name())

"""Speak every continuation of one set of preferences."""

from alignslm import tables
from alignslm.engine.work import ModelTask
from alignslm.vocoder import load_vocoder
from alignslm.vocoder.rows import synthesize_rows
from stages.names import requested_name
from stages.run import start


def main(name: str) -> None:
    """Run the stage for one set of preferences."""
    with start(__file__, name) as run, run.work() as work:
        artifacts, source = run.artifacts, run.artifacts.table("continuations", name)
        contract = tables.contract_of(tables.CONTINUATIONS, source)
        continuations = tables.read(tables.CONTINUATIONS, source)
        vocoder = run.unit_model(
            load_vocoder, run.experiment.vocoder, artifacts.vocoder, units_of=(tables.CONTINUATIONS, source)
        )
        shards = run.map_rows(continuations, ModelTask(vocoder, synthesize_rows), work)
        spoken = tables.write_shards(shards, tables.SPEECH, artifacts.speech(name), contract)
        run.log.rows(inputs={"continuations": len(continuations)}, outputs={"spoken": spoken})


if __name__ == "__main__":
    main(requested_name())

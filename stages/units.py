"""Encode every utterance into deduplicated units and durations."""

from alignslm import tables
from alignslm.encoder import load_encoder
from alignslm.encoder.rows import encode_utterances
from alignslm.engine.work import ModelTask
from stages.run import start


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        artifacts = run.artifacts
        encoder = run.model(load_encoder, run.experiment.encoder, artifacts.encoder)
        with run.work() as work:
            encode = ModelTask(encoder, encode_utterances)
            encoded = run.map_table(tables.UTTERANCES, artifacts.utterances, encode, work)
            tables.write(encoded, tables.ENCODED, artifacts.units, encoder().contract)
        run.log.rows(inputs={"utterances": len(encoded)}, outputs={"units": int(encoded["units"].list.len().sum())})


if __name__ == "__main__":
    main()

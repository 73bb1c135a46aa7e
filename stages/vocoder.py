"""Fit or fetch the unit vocoder, on training speech only."""

import polars as pl

from alignslm import tables
from alignslm.utterances import pick, waveforms_of
from alignslm.vocoder import SpokenUnits, prepare_vocoder
from stages.run import start


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        config, artifacts = run.experiment.vocoder, run.artifacts
        contract = tables.contract_of(tables.ENCODED, artifacts.units)
        encoded = tables.read(tables.ENCODED, artifacts.units)
        chosen = set(pick(encoded, "train", config.fit_utterances, "vocoder"))
        wanted = encoded.filter(pl.col("utterance_id").is_in(list(chosen)))
        units = {row["utterance_id"]: row for row in wanted.iter_rows(named=True)}
        spoken = [
            SpokenUnits(units[name]["units"], units[name]["durations"], waveform)
            for name, waveform in waveforms_of(artifacts.utterances, chosen, config.sample_rate_hz)
        ]
        run.log.figures(prepare_vocoder(config, spoken, contract, artifacts.vocoder))
        run.log.rows(inputs={"utterances": len(spoken)}, outputs={"vocoder": 1})


if __name__ == "__main__":
    main()

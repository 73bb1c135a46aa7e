"""Fit or fetch the unit vocoder, on training speech only."""

import polars as pl

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.progress import stage
from alignslm.utterances import pick, waveforms_of
from alignslm.vocoder import SpokenUnits, prepare_vocoder
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("vocoder") as log:
        experiment = load_experiment()
        config = experiment.vocoder
        contract = tables.contract_of(tables.ENCODED, layout.UNITS)
        encoded = tables.read(tables.ENCODED, layout.UNITS)
        chosen = set(pick(encoded, "train", config.fit_utterances, "vocoder"))
        wanted = encoded.filter(pl.col("utterance_id").is_in(list(chosen)))
        units = {row["utterance_id"]: row for row in wanted.iter_rows(named=True)}
        spoken = [
            SpokenUnits(units[name]["units"], units[name]["durations"], waveform)
            for name, waveform in waveforms_of(layout.UTTERANCES, chosen, config.sample_rate_hz)
        ]
        code = layout.own_code(f"vocoder/{experiment.params.vocoder}")
        device = load_execution().device
        log.figures(prepare_vocoder(config, spoken, contract, layout.VOCODER, device=device, code=code))
        log.rows(inputs={"utterances": len(spoken)}, outputs={"vocoder": 1})


if __name__ == "__main__":
    main()

"""Fit or fetch the unit vocoder, on training speech only."""

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.utterances import iter_waveforms, select_by_hash
from alignslm.vocoder import VocoderExample, prepare_vocoder
from stages.run import start


def main() -> None:
    """Run the stage."""
    with start(__file__) as run, run.work() as work:
        config, artifacts = run.experiment.vocoder, run.artifacts
        contract = tables.contract_of(tables.ENCODED, artifacts.units)
        encoded = tables.read(tables.ENCODED, artifacts.units)
        chosen = set(select_by_hash(encoded, "train", config.fit_utterances, "vocoder"))
        wanted = encoded.filter(pl.col("utterance_id").is_in(list(chosen)))
        units = {row["utterance_id"]: row for row in wanted.iter_rows(named=True)}
        speakers = dict(
            tables.read(tables.UTTERANCES, artifacts.utterances, ["utterance_id", "speaker_id"]).iter_rows()
        )
        spoken = [
            VocoderExample(np.array(units[name]["units"]), np.array(units[name]["durations"]), waveform, speakers[name])
            for name, waveform in iter_waveforms(artifacts.utterances, chosen, config.sample_rate_hz)
        ]
        folder, code = artifacts.vocoder, artifacts.own_code(f"vocoder/{run.params.vocoder}")
        figures = prepare_vocoder(config, spoken, contract, folder, work=work, device=run.execution.device, code=code)
        run.log.log_metrics(figures)
        run.log.rows(inputs={"utterances": len(spoken)}, outputs={"vocoder": 1})


if __name__ == "__main__":
    main()

"""Fit or fetch the recogniser, on training speech as recorded and as the vocoder says it again."""

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.asr import prepare_asr
from alignslm.audio import resample
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.experiment import Experiment
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.speech import AsrConfig
from alignslm.progress import stage
from alignslm.utterances import pick, waveforms_of
from alignslm.vocoder import load_vocoder
from stages import layout


def _recorded(config: AsrConfig, said: dict[str, str]) -> list[tuple[np.ndarray, str]]:
    waveforms = waveforms_of(layout.UTTERANCES, set(said), config.sample_rate_hz)
    return [(waveform, said[name]) for name, waveform in waveforms]


def _resynthesised(experiment: Experiment, said: dict[str, str]) -> list[tuple[np.ndarray, str]]:
    if not said:
        return []
    units = tables.read(tables.ENCODED, layout.UNITS).filter(pl.col("utterance_id").is_in(list(said)))
    vocoder = load_vocoder(experiment.vocoder, layout.VOCODER, device=load_execution().device)
    rates = {"from_hz": vocoder.sample_rate_hz, "to_hz": experiment.asr.sample_rate_hz}
    spoken = vocoder.synthesize(units["units"].to_list())
    return [
        (resample(waveform, **rates), said[name]) for name, waveform in zip(units["utterance_id"], spoken, strict=True)
    ]


def main() -> None:
    """Run the stage."""
    with stage("asr") as log:
        experiment = load_experiment()
        warn_emulated(experiment, load_execution(), "asr")
        config = experiment.asr
        texts = tables.read(tables.UTTERANCES, layout.UTTERANCES, ["utterance_id", "split", "text"])
        chosen = pick(texts.drop_nulls("text"), "train", config.fit_utterances, "asr")
        again = chosen[: round(config.resynthesised_share * len(chosen))]
        rows = texts.filter(pl.col("utterance_id").is_in(chosen)).select("utterance_id", "text").iter_rows()
        said: dict[str, str] = dict(rows)
        spoken = _recorded(config, said) + _resynthesised(experiment, {name: said[name] for name in again})
        code = layout.own_code(f"asr/{experiment.params.asr}")
        log.figures(prepare_asr(config, spoken, layout.ASR, device=load_execution().device, code=code))
        log.rows(inputs={"original": len(chosen), "resynthesised": len(again)}, outputs={"recogniser": 1})


if __name__ == "__main__":
    main()

"""Fit or download the ASR model, on training speech as recorded and resynthesized."""

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.asr import prepare_asr
from alignslm.audio import resample
from alignslm.config.arithmetic import warn_emulated
from alignslm.utterances import iter_waveforms, select_by_hash
from alignslm.vocoder import load_vocoder
from stages.run import Run, start


def _recorded(run: Run, texts_by_id: dict[str, str]) -> list[tuple[np.ndarray, str]]:
    waveforms = iter_waveforms(run.artifacts.utterances, set(texts_by_id), run.experiment.asr.sample_rate_hz)
    return [(waveform, texts_by_id[name]) for name, waveform in waveforms]


def _resynthesized(run: Run, texts_by_id: dict[str, str]) -> list[tuple[np.ndarray, str]]:
    if not texts_by_id:
        return []
    units = tables.read(tables.ENCODED, run.artifacts.units).filter(pl.col("utterance_id").is_in(list(texts_by_id)))
    vocoder = load_vocoder(run.experiment.vocoder, run.artifacts.vocoder, device=run.execution.device)
    rates = {"from_hz": vocoder.sample_rate_hz, "to_hz": run.experiment.asr.sample_rate_hz}
    spoken = vocoder.synthesize(units["units"].to_list())
    return [
        (resample(waveform, **rates), texts_by_id[name])
        for name, waveform in zip(units["utterance_id"], spoken, strict=True)
    ]


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        warn_emulated(run.experiment, run.execution, "asr")
        config = run.experiment.asr
        texts = tables.read(tables.UTTERANCES, run.artifacts.utterances, ["utterance_id", "split", "text"])
        chosen = select_by_hash(texts.drop_nulls("text"), "train", config.fit_utterances, "asr")
        again = chosen[: round(config.resynthesized_fraction * len(chosen))]
        rows = texts.filter(pl.col("utterance_id").is_in(chosen)).select("utterance_id", "text").iter_rows()
        texts_by_id: dict[str, str] = dict(rows)
        spoken = _recorded(run, texts_by_id) + _resynthesized(run, {name: texts_by_id[name] for name in again})
        code = run.artifacts.own_code(f"asr/{run.params.asr}")
        run.log.log_metrics(prepare_asr(config, spoken, run.artifacts.asr, device=run.execution.device, code=code))
        run.log.rows(inputs={"original": len(chosen), "resynthesized": len(again)}, outputs={"ASR model": 1})


if __name__ == "__main__":
    main()

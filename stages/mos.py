"""Predict how natural sampled and recorded speech sounds: one process for all systems."""

from functools import partial

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.artifacts import Artifacts
from alignslm.engine.work import ModelTask, lazy
from alignslm.mos import MOSPredictor, load_mos, prepare_mos
from alignslm.mos.rows import rate, select_clips
from alignslm.recordings import Recording, recordings_of
from alignslm.utterances import decode_at
from stages.run import start

RECORDED = {"original-prompts": "prompt", "original-continuations": "continuation"}


def _rated(
    system: str, predictor: MOSPredictor, *, artifacts: Artifacts, split: str, max_clips: int | None
) -> pl.DataFrame:
    if system in RECORDED:
        return _recorded(system, split, predictor, artifacts, max_clips)
    return _sampled(system, predictor, artifacts, max_clips)


def _sampled(system: str, predictor: MOSPredictor, artifacts: Artifacts, max_clips: int | None) -> pl.DataFrame:
    """Rate one system's continuations of the evaluation prompts."""
    sample = artifacts.sample(system)
    drawn = tables.read(tables.CONTINUATIONS, sample.continuations, ["continuation_id", "prompt_id", "sample_index"])
    clips = drawn.rename({"continuation_id": "source_id"})
    heard = select_clips(clips, max_clips)
    sounds = (
        (source_id, decode_at(record, predictor.sample_rate_hz))
        for shard in tables.iterate(tables.SPEECH, sample.speech, ["continuation_id", "audio"])
        for source_id, record in shard.filter(pl.col("continuation_id").is_in(heard)).iter_rows()
    )
    return rate(clips, heard, sounds, predictor, system=system)


def _recorded(
    system: str, split: str, predictor: MOSPredictor, artifacts: Artifacts, max_clips: int | None
) -> pl.DataFrame:
    """Rate the evaluation prompts, or their ground-truth continuations, as recorded."""
    prompts = tables.read(tables.PROMPTS, artifacts.prompts).filter(pl.col("split") == split)
    clips = prompts.select("prompt_id", source_id="prompt_id", sample_index=pl.lit(0))
    heard = select_clips(clips, max_clips)
    cuts = recordings_of(artifacts.utterances, prompts.filter(pl.col("prompt_id").is_in(heard)))
    sounds = ((cut.prompt_id, _at(getattr(cut, RECORDED[system]), cut, predictor.sample_rate_hz)) for cut in cuts)
    return rate(clips, heard, sounds, predictor, system=system)


def _at(waveform: np.ndarray, cut: Recording, rate_hz: int) -> np.ndarray:
    return audio.resample(waveform, from_hz=cut.sample_rate_hz, to_hz=rate_hz)


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        config, artifacts, execution = run.experiment.mos, run.artifacts, run.execution
        prepare_mos(config, artifacts.mos)
        predictor = lazy(load_mos, config, artifacts.mos, workers=execution.num_workers, device=execution.device)
        split, max_clips = run.params.evaluation.split, config.max_clips
        rating = ModelTask(predictor, partial(_rated, artifacts=artifacts, split=split, max_clips=max_clips))
        with run.work() as work:
            rated = list(run.map_tasks([*run.params.systems, *RECORDED], rating, work))
            for frame in rated:
                tables.write(frame, tables.MOS, artifacts.mos_of(frame["system"][0]))
        done = pl.concat(rated)
        run.log.rows(
            inputs={"clips": done.n_unique(["system", "source_id"])},
            outputs={"rated": done.filter(status="ok").n_unique(["system", "source_id"])},
        )


if __name__ == "__main__":
    main()

"""Predict how good sampled speech sounds, and recorded speech beside it: one process for all systems."""

from functools import partial

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, once
from alignslm.mos import MosPredictor, load_mos, prepare_mos
from alignslm.mos.rows import chosen, rate
from alignslm.progress import stage
from alignslm.recordings import Recording, recordings_of
from alignslm.shards import map_tasks, work_folder
from alignslm.utterances import decode_at
from stages import layout

RECORDED = {"recorded-prompts": "prompt", "recorded-continuations": "continuation"}


def _rated(system: str, predictor: MosPredictor, *, split: str, max_clips: int | None) -> pl.DataFrame:
    if system in RECORDED:
        return _recorded(system, split, predictor, max_clips)
    return _sampled(system, predictor, max_clips)


def _sampled(system: str, predictor: MosPredictor, max_clips: int | None) -> pl.DataFrame:
    """Rate what one system said to the evaluation prompts."""
    folder = layout.sample(system)
    drawn = tables.read(
        tables.CONTINUATIONS, folder / "continuations.parquet", ["continuation_id", "prompt_id", "draw"]
    )
    clips = drawn.rename({"continuation_id": "source_id"})
    heard = chosen(clips, max_clips)
    sounds = (
        (source_id, decode_at(record, predictor.sample_rate_hz))
        for shard in tables.iterate(tables.SPEECH, folder / "speech", ["continuation_id", "audio"])
        for source_id, record in shard.filter(pl.col("continuation_id").is_in(heard)).iter_rows()
    )
    return rate(clips, heard, sounds, predictor, system=system)


def _recorded(system: str, split: str, predictor: MosPredictor, max_clips: int | None) -> pl.DataFrame:
    """Rate the evaluation prompts, or their true continuations, as recorded."""
    prompts = tables.read(tables.PROMPTS, layout.PROMPTS).filter(pl.col("split") == split)
    clips = prompts.select("prompt_id", source_id="prompt_id", draw=pl.lit(0))
    heard = chosen(clips, max_clips)
    cuts = recordings_of(layout.UTTERANCES, prompts.filter(pl.col("prompt_id").is_in(heard)))
    sounds = ((cut.prompt_id, _at(getattr(cut, RECORDED[system]), cut, predictor.sample_rate_hz)) for cut in cuts)
    return rate(clips, heard, sounds, predictor, system=system)


def _at(waveform: np.ndarray, cut: Recording, rate_hz: int) -> np.ndarray:
    return audio.resample(waveform, from_hz=cut.sample_rate_hz, to_hz=rate_hz)


def main() -> None:
    """Run the stage."""
    with stage("mos") as log:
        experiment, execution = load_experiment(), load_execution()
        config, params = experiment.mos, experiment.params
        prepare_mos(config, layout.MOS)
        predictor = once(load_mos, config, layout.MOS, workers=execution.workers, device=execution.device)
        split = params.evaluation.split
        sampled = [*params.controls, *params.rounds]
        inputs = [layout.PROMPTS, layout.UTTERANCES, *map(layout.sample, sampled)]
        values = {"config": config, "split": split, "systems": " ".join(sampled)}
        with work_folder("mos", script=__file__, params=values, inputs=inputs) as work:
            shards = map_tasks(
                [*sampled, *RECORDED],
                WithModel(predictor, partial(_rated, split=split, max_clips=config.max_clips)),
                folder=work,
                label="mos",
                pool=pool_of(execution),
            )
            rated = list(shards)
            for frame in rated:
                tables.write(frame, tables.MOS, layout.mos(frame["system"][0]))
        done = pl.concat(rated)
        log.rows(
            inputs={"clips": done.n_unique(["system", "source_id"])},
            outputs={"rated": done.filter(status="ok").n_unique(["system", "source_id"])},
        )


if __name__ == "__main__":
    main()

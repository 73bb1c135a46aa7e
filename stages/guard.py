"""Measure every saved step of a checkpoint on held-out prompts, and keep the best one that is inside all limits."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from alignslm import tables
from alignslm.asr import ASRModel, load_asr
from alignslm.asr.rows import transcribe
from alignslm.benchmarks.continuation import judged_rows
from alignslm.benchmarks.spoken import measure_speech
from alignslm.config.guard import MEASURES
from alignslm.encoder import Encoder, load_encoder
from alignslm.engine.work import LazyModel, ModelTask, lazy
from alignslm.guard import START, choose, measures_of, outcome
from alignslm.judge.rows import join_judge_inputs
from alignslm.mos import MOSPredictor, headline_metric, load_mos, prepare_mos
from alignslm.mos.rows import select_clips
from alignslm.prompts import read_prompts, with_prompt_units
from alignslm.shards import map_tasks
from alignslm.storage import write_text
from alignslm.utterances import waveforms_at
from alignslm.vocoder import Vocoder, load_vocoder
from alignslm.vocoder.rows import synthesize_rows
from stages.judging import both_judges
from stages.names import requested_name
from stages.run import Run, start
from stages.sampling import drawing

if TYPE_CHECKING:
    from alignslm.lm.checkpoint import UnitLM

SPOKEN = ("silence_ratio", "unit_error_rate", "num_samples", "sample_rate_hz")


@dataclass(frozen=True)
class _Ears:
    """Speaks, measures and transcribes continuations, and rates the sound of some; it is not kept."""

    vocoder: LazyModel[Vocoder]
    encoder: LazyModel[Encoder]
    asr: LazyModel[ASRModel]
    mos: LazyModel[MOSPredictor]
    rated: frozenset[str] = frozenset()

    def __call__(self, drawn: pl.DataFrame) -> pl.DataFrame:
        """Return TRANSCRIPTS columns, `SPOKEN` and `predicted_mos` (null if not rated) of rows of continuations."""
        speech = synthesize_rows(drawn, self.vocoder())
        lengths = speech.select("continuation_id", "num_samples", "sample_rate_hz")
        measured = measure_speech(speech, drawn, self.encoder()).join(lengths, on="continuation_id", validate="1:1")
        heard = transcribe(speech, self.asr())
        heard = heard.join(measured, left_on="source_id", right_on="continuation_id", validate="1:1")
        opinions = self.opinions(speech.filter(pl.col("continuation_id").is_in(self.rated)))
        return heard.with_columns(
            predicted_mos=pl.col("source_id").replace_strict(opinions, default=None, return_dtype=pl.Float64)
        )

    def opinions(self, speech: pl.DataFrame) -> dict[str, float | None]:
        """Return the predicted MOS of rows of speech; None where there is no sound."""
        if speech.is_empty():
            return {}
        predictor = self.mos()
        which = predictor.metrics.index(headline_metric(predictor.metrics))
        said = predictor.predict(waveforms_at(speech["audio"], predictor.sample_rate_hz))
        return {
            name: opinion.values[which] if opinion.values else None
            for name, opinion in zip(speech["continuation_id"], said, strict=True)
        }


def _ears(run: Run, work: Path) -> _Ears:
    artifacts, place, config = run.artifacts, (tables.PROMPTS, run.artifacts.prompts), run.experiment.mos
    prepare_mos(config, work / "mos")
    workers, device = run.execution.num_workers, run.execution.device
    return _Ears(
        run.unit_model(load_vocoder, run.experiment.vocoder, artifacts.vocoder, units_of=place),
        run.unit_model(load_encoder, run.experiment.encoder, artifacts.encoder, units_of=place),
        run.model(load_asr, run.experiment.asr, artifacts.asr),
        lazy(load_mos, config, work / "mos", workers=workers, device=device),
    )


def _lm(run: Run, folder: Path) -> LazyModel["UnitLM"]:
    from alignslm.lm.checkpoint import load_lm  # seconds to import

    return run.unit_model(load_lm, folder, units_of=(tables.PROMPTS, run.artifacts.prompts))


def _save(run: Run, step: int, folder: Path) -> None:
    """Write a step as a checkpoint: the start with the adapter of that step merged."""
    from peft import PeftModel

    from alignslm.lm.checkpoint import save_lm
    from alignslm.training.adapter import save_adapter_and_merge

    guard = run.params.guards[run.name]
    lm = _lm(run, run.artifacts.checkpoint(guard.init_from))()
    model = lm.model
    if step != START:
        adapted = PeftModel.from_pretrained(model, run.artifacts.steps(guard.steps_of) / f"{step:06d}")
        model = save_adapter_and_merge(adapted, folder / "adapter")
    save_lm(model, lm.vocabulary, tables.contract_of(tables.PROMPTS, run.artifacts.prompts), folder)


def _draw(run: Run, lm: LazyModel["UnitLM"], prompts: pl.DataFrame, work: Path, label: str) -> pl.DataFrame:
    guard = run.params.guards[run.name]
    draw = drawing(run, seed=run.params.seeds.evaluation, purpose="guard", num_continuations=guard.num_continuations)
    drawn = run.map_rows(prompts, ModelTask(lm, draw), run.sampling_folder(work), step=label)
    return tables.conform(pl.concat(drawn), tables.CONTINUATIONS)


def _kl(run: Run, lm: LazyModel["UnitLM"], start: LazyModel["UnitLM"], told: pl.DataFrame) -> float:
    """Return the mean of log p(continuation) less that under the start; `told` are continuations with their prompts."""
    from alignslm.lm.likelihood import continuation_nats

    mine, theirs = (continuation_nats(one(), told, batch_size=run.execution.batch_size) for one in (lm, start))
    return float((mine - theirs).mean())


def _judged(run: Run, stories: pl.DataFrame, drawn: pl.DataFrame, speech: pl.DataFrame, work: Path) -> pl.DataFrame:
    return judged_rows(
        stories,
        drawn,
        speech,
        both_judges(run, work),
        model=run.name,
        auto_bleu=run.params.auto_bleu,
        grammar=None,
    )


def _measure(run: Run, prompts: pl.DataFrame, ears: _Ears, work: Path) -> Callable[[int], pl.DataFrame]:
    """Return a function that measures a saved step: one row, which GUARD has but for the choice."""
    start = _lm(run, run.artifacts.checkpoint(run.params.guards[run.name].init_from))

    def measure(step: int) -> pl.DataFrame:
        place, label = work / f"{step:06d}", f"step {step}"
        _save(run, step, place / "checkpoint")
        lm = _lm(run, place / "checkpoint")
        drawn = _draw(run, lm, prompts, place, f"{label} drawn")
        clips = drawn.rename({"continuation_id": "source_id"})
        here = replace(ears, rated=frozenset(select_clips(clips, run.experiment.mos.max_clips)))
        heard = pl.concat(run.map_rows(drawn, here, place / "heard", step=f"{label} heard"))
        transcripts = tables.conform(heard, tables.TRANSCRIPTS)
        speech = heard.select(pl.col("source_id").alias("continuation_id"), *SPOKEN)
        stories = join_judge_inputs(drawn, transcripts, prompts)
        judged = _judged(run, stories, drawn, speech, place)
        told = with_prompt_units(drawn, prompts)
        found = measures_of(judged, transcripts, drawn["units"].to_list()) | {"kl": _kl(run, lm, start, told)}
        found |= {"predicted_mos": heard["predicted_mos"].mean()}  # type: ignore[dict-item]
        shutil.rmtree(place)  # the row is all that is kept: a checkpoint is large
        schema = {name: kind for name, kind in tables.GUARD.schema.items() if name in {"step", *MEASURES}}
        return pl.DataFrame([{"step": step, **found}], schema=schema)

    return measure


def main(name: str) -> None:
    """Run the stage for one guard."""
    with start(__file__, name) as run, run.work() as work:
        guard, artifacts, folder = run.params.guards[name], run.artifacts, run.artifacts.checkpoint(name)
        prompts = read_prompts(*artifacts.prompt_tables).filter(pl.col("split") == "valid")
        steps = [START, *sorted(int(path.name) for path in artifacts.steps(guard.steps_of).iterdir())]
        measure = _measure(run, prompts, _ears(run, work), work)
        rows = map_tasks(steps, measure, folder=work / "measured", label=f"{run.label} steps")
        chosen = choose(pl.concat(rows), guard)
        kept, said = chosen.filter("kept")["step"][0], outcome(chosen, guard)
        _save(run, kept, folder)
        tables.write(chosen, tables.GUARD, artifacts.guard(name))
        log = {
            "steps_of": guard.steps_of,
            "best": guard.best,
            "outcome": said,
            "kept": kept,
            "steps": chosen.to_dicts(),
        }
        write_text(artifacts.training(name), json.dumps(log, indent=1, allow_nan=False) + "\n")
        print(f"{run.label}: {said}", flush=True)
        run.log.rows(inputs={"steps": len(steps), "prompts": len(prompts)}, outputs={"kept step": kept})


if __name__ == "__main__":
    main(requested_name())

"""Continue the evaluation prompts with one system, synthesize and transcribe, for the judges.

Judges run in the next stage, so that another judge needs no new samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from alignslm import tables
from alignslm.asr import ASRModel, load_asr
from alignslm.asr.prompts import transcribe_recordings
from alignslm.asr.rows import transcribe
from alignslm.engine.work import LazyModel, ModelTask
from alignslm.prompts import ground_truth_continuations, with_prompt_units
from alignslm.vocoder import load_vocoder
from alignslm.vocoder.rows import synthesize_rows
from stages.names import requested_name
from stages.run import Run, start
from stages.sampling import held_out_draw

if TYPE_CHECKING:
    from alignslm.lm.checkpoint import UnitLM


def _draw(run: Run, prompts: pl.DataFrame, work: Path) -> Iterator[pl.DataFrame]:
    """Yield the continuations of a system: of its checkpoint, or the ground truth."""
    params, system = run.params, run.params.systems[run.name]
    folder, drawn_from = run.sampling_folder(work), params.sampled_checkpoint(run.name)
    if system.judged_best is not None:
        return iter([tables.read(tables.CONTINUATIONS, run.artifacts.best_of(system.judged_best, "continuations"))])
    if drawn_from is None:
        return run.map_rows(prompts, ground_truth_continuations, folder, step="drawn", here=True)
    from alignslm.lm.checkpoint import load_lm  # seconds to import, and not every system needs it

    place, count = (tables.PROMPTS, run.artifacts.prompts), params.evaluation.num_continuations
    lm = run.unit_model(load_lm, run.artifacts.checkpoint(drawn_from), units_of=place)
    draw = held_out_draw(run, best_of=system.best_of or 1, temperature_scale=system.temperature_scale)
    if system.reward_model is None:
        return run.map_rows(prompts, ModelTask(lm, draw), folder, step="drawn")
    from alignslm.lm.reward import load_reward

    reward = run.unit_model(load_reward, run.artifacts.reward_model(system.reward_model), units_of=place)
    best = _BestOf(lm, reward, draw, count, run.execution.rows_at_once)
    return run.map_rows(prompts, best, folder, step="drawn")


@dataclass(frozen=True)
class _BestOf:
    """Draws continuations and takes what a reward model ranks highest."""

    lm: LazyModel["UnitLM"]
    reward: LazyModel["UnitLM"]
    draw: Callable[..., pl.DataFrame]
    num_continuations: int
    batch_size: int

    def __call__(self, prompts: pl.DataFrame) -> pl.DataFrame:
        from alignslm.lm.reward import best_of, unit_rewards

        drawn = self.draw(prompts, self.lm())
        told = with_prompt_units(drawn, prompts)
        rewards = unit_rewards(self.reward(), told, batch_size=self.batch_size)
        return best_of(drawn, rewards, num_continuations=self.num_continuations)


def _transcribe_recordings(run: Run, prompts: pl.DataFrame, asr: LazyModel[ASRModel], work: Path) -> None:
    """Transcribe the ground-truth continuations as recorded: the ASR model's errors without the vocoder's."""
    known, rows = prompts.filter(pl.col("continuation_text").is_not_null()), run.execution.shard_size
    task = partial(transcribe_recordings, prompts=known, side="continuation", shard_size=rows)
    parts = tables.parts(run.artifacts.utterances)
    transcripts = run.map_tasks(parts, ModelTask(asr, task), work / "recorded", step="recorded")
    tables.write(pl.concat(transcripts), tables.TRANSCRIPTS, run.artifacts.sample(run.name).recorded)


def main(name: str) -> None:
    """Run the stage for one system."""
    with start(__file__, name) as run, run.work() as work:
        artifacts, sample, source = run.artifacts, run.artifacts.sample(name), run.artifacts.prompts
        contract = tables.contract_of(tables.PROMPTS, source)
        prompts = tables.read(tables.PROMPTS, source).filter(pl.col("split") == run.params.evaluation.split)
        place = (tables.PROMPTS, source)
        drawn = tables.conform(pl.concat(_draw(run, prompts, work)), tables.CONTINUATIONS)
        tables.write(drawn, tables.CONTINUATIONS, sample.continuations, contract)
        vocoder = run.unit_model(load_vocoder, run.experiment.vocoder, artifacts.vocoder, units_of=place)
        spoken = run.map_rows(drawn, ModelTask(vocoder, synthesize_rows), work / "spoken", step="spoken")
        tables.write_shards(spoken, tables.SPEECH, sample.speech, contract)
        asr = run.model(load_asr, run.experiment.asr, artifacts.asr)
        task = ModelTask(asr, transcribe)
        transcripts = run.map_table(tables.SPEECH, sample.speech, task, work / "heard", step="heard")
        tables.write(transcripts, tables.TRANSCRIPTS, sample.transcripts)
        if name in run.params.toplines:
            _transcribe_recordings(run, prompts, asr, work)
        run.log.rows(inputs={"prompts": len(prompts)}, outputs={"continuations": len(drawn)})


if __name__ == "__main__":
    main(requested_name())

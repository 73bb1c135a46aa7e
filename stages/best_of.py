"""Best-of-N by the judge: of N continuations of a held-out prompt, spoken and heard, the one that it scores highest.

Scores of all of them are kept beside the choice, and are what `compare-ways` counts as judge calls.
"""

from dataclasses import dataclass
from functools import partial

import polars as pl

from alignslm import tables
from alignslm.asr import ASRModel, load_asr
from alignslm.asr.rows import transcribe
from alignslm.engine.work import LazyModel, ModelTask
from alignslm.judge.rows import join_judge_inputs, score
from alignslm.lm.checkpoint import load_lm
from alignslm.lm.reward import best_of
from alignslm.prompts import read_prompts
from alignslm.vocoder import Vocoder, load_vocoder
from alignslm.vocoder.rows import synthesize_rows
from stages.judging import cached_judge
from stages.names import requested_name
from stages.run import Run, outcomes, start
from stages.sampling import held_out_draw


@dataclass(frozen=True)
class _Heard:
    """Speaks continuations and transcribes them; the sound is not kept."""

    vocoder: LazyModel[Vocoder]
    asr: LazyModel[ASRModel]

    def __call__(self, drawn: pl.DataFrame) -> pl.DataFrame:
        return transcribe(synthesize_rows(drawn, self.vocoder()), self.asr())


def _heard(run: Run) -> _Heard:
    artifacts, place = run.artifacts, (tables.PROMPTS, run.artifacts.prompts)
    vocoder = run.unit_model(load_vocoder, run.experiment.vocoder, artifacts.vocoder, units_of=place)
    return _Heard(vocoder, run.model(load_asr, run.experiment.asr, artifacts.asr))


def main(name: str) -> None:
    """Run the stage for one best-of-N."""
    with start(__file__, name) as run, run.work() as work:
        params, artifacts, made = run.params, run.artifacts, partial(run.artifacts.best_of, name)
        noun, count = params.best_of[name], params.evaluation.num_continuations
        contract = tables.contract_of(tables.PROMPTS, artifacts.prompts)
        prompts = read_prompts(*artifacts.prompt_tables).filter(pl.col("split") == params.evaluation.split)
        checkpoint = artifacts.checkpoint(noun.sampled_from)
        lm = run.unit_model(load_lm, checkpoint, units_of=(tables.PROMPTS, artifacts.prompts))
        draw = ModelTask(lm, held_out_draw(run, best_of=noun.num_continuations))
        shards = run.map_rows(prompts, draw, run.sampling_folder(work), step="drawn")
        drawn = tables.conform(pl.concat(shards), tables.CONTINUATIONS)
        heard = tables.conform(
            pl.concat(run.map_rows(drawn, _heard(run), work / "heard", step="heard")), tables.TRANSCRIPTS
        )
        judge = cached_judge(run, params.judge, run.experiment.judge, work / "judged", label=f"{run.label} judged")
        scored = score(join_judge_inputs(drawn, heard, prompts), judge, auto_bleu=params.auto_bleu)
        judged = drawn.select("continuation_id").join(
            scored, on="continuation_id", validate="1:1", maintain_order="left"
        )
        unscored_last = judged["judge_score"].fill_null(float("-inf")).to_numpy()
        best = best_of(drawn, unscored_last, num_continuations=count)
        tables.write(best, tables.CONTINUATIONS, made("continuations"), contract)
        tables.write(drawn, tables.CONTINUATIONS, made("drawn"), contract)
        tables.write(heard, tables.TRANSCRIPTS, made("transcripts"))
        tables.write(scored, tables.SCORES, made("scores"))
        tables.write(scored.with_columns(judge=pl.lit(params.judge)), tables.REPLIES, made("replies"))
        run.log.rows(inputs={"prompts": len(prompts)}, outputs={**outcomes(scored), "chosen": len(best)})


if __name__ == "__main__":
    main(requested_name())

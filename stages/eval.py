"""Evaluate one system: benchmark likelihoods, and its continuations by the training and the held-out judge."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from alignslm import tables
from alignslm.benchmarks.continuation import GrammarCheck, judged_rows
from alignslm.benchmarks.spoken import measure_speech
from alignslm.config.evaluation import Evaluation
from alignslm.config.experiment import Experiment
from alignslm.encoder import Encoder, load_encoder
from alignslm.engine.work import ModelTask, with_contract
from alignslm.judge.rows import join_judge_inputs
from alignslm.prompts import read_prompts
from stages.judging import both_judges
from stages.names import requested_name
from stages.run import Run, start

if TYPE_CHECKING:
    from alignslm.lm.checkpoint import UnitLM


def _grammar(experiment: Experiment) -> GrammarCheck | None:
    if experiment.corpus.kind != "storyworld":
        return None
    from alignslm.storyworld.grammar import can_continue

    return can_continue


def _speech(run: Run, continuations: pl.DataFrame, work: Path) -> pl.DataFrame:
    """Measure the audio of every continuation, including its length."""
    sample = run.artifacts.sample(run.name)
    place = (tables.CONTINUATIONS, sample.continuations)
    encoder = run.unit_model(load_encoder, run.experiment.encoder, run.artifacts.encoder, units_of=place)
    measure = ModelTask(encoder, partial(_measure, continuations=continuations))
    measured = run.map_table(tables.SPEECH, sample.speech, measure, work, step="sound")
    lengths = tables.read(tables.SPEECH, sample.speech, ["continuation_id", "num_samples", "sample_rate_hz"])
    return lengths.join(measured, on="continuation_id", validate="1:1")


def _measure(rows: pl.DataFrame, encoder: Encoder, *, continuations: pl.DataFrame) -> pl.DataFrame:
    return measure_speech(rows, continuations, encoder)


def _judged(run: Run, work: Path) -> pl.DataFrame:
    sample = run.artifacts.sample(run.name)
    continuations = tables.read(tables.CONTINUATIONS, sample.continuations)
    transcripts = tables.read(tables.TRANSCRIPTS, sample.transcripts)
    speech = _speech(run, continuations, work / "sound")
    stories = join_judge_inputs(continuations, transcripts, read_prompts(*run.artifacts.prompt_tables))
    return judged_rows(
        stories,
        continuations,
        speech,
        both_judges(run, work),
        model=run.name,
        auto_bleu=run.params.auto_bleu,
        grammar=_grammar(run.experiment),
    )


def _item_scores(run: Run, work: Path) -> pl.DataFrame:
    system, artifacts = run.params.systems[run.name], run.artifacts
    if system.checkpoint is None or system.temperature_scale != 1.0:
        # Likelihoods do not depend on temperature: they are the checkpoint's, reported there.
        return pl.DataFrame(schema=dict(tables.ITEM_SCORES.schema))
    from alignslm.lm.checkpoint import load_lm  # seconds to import, and not every system needs it

    source, rows = artifacts.checkpoint(system.checkpoint), run.execution.shard_size
    lm = run.model(load_lm, source)
    for folder in map(artifacts.benchmark, run.params.benchmarks):
        lm = with_contract(lm, tables.contract_of(tables.ITEMS, folder), mine=source, theirs=folder)
    score = partial(_score, config=run.params.evaluation, model=run.name, batch_size=run.execution.rows_at_once)
    cuts = [
        cut for name in run.params.benchmarks for cut in _item_batches(name, artifacts.benchmark(name), shard_size=rows)
    ]
    return pl.concat(run.map_tasks(cuts, ModelTask(lm, score), work / f"shards-of-{rows}", step="items"))


class _ItemBatch(NamedTuple):
    """Items of whole pairs."""

    benchmark: str
    items: pl.DataFrame


def _item_batches(name: str, folder: Path, *, shard_size: int) -> Iterator[_ItemBatch]:
    from alignslm.benchmarks.scoring import COLUMNS

    items = tables.read(tables.ITEMS, folder, COLUMNS)
    for pairs in items.select("pair_id").unique().sort("pair_id").iter_slices(shard_size):
        yield _ItemBatch(name, items.join(pairs, on="pair_id", how="semi"))


def _score(cut: _ItemBatch, lm: "UnitLM", *, config: Evaluation, model: str, batch_size: int) -> pl.DataFrame:
    from alignslm.benchmarks.scoring import score_items

    return score_items(cut.items, lm, config, benchmark=cut.benchmark, model=model, batch_size=batch_size)


def main(name: str) -> None:
    """Run the stage for one system."""
    with start(__file__, name) as run, run.work() as work:
        judged = _judged(run, work / "judged")
        tables.write(judged, tables.CONTINUATION_METRICS, run.artifacts.judged(name))
        scored = _item_scores(run, work / "items")
        tables.write(scored, tables.ITEM_SCORES, run.artifacts.item_scores(name))
        run.log.rows(
            inputs={"continuations": judged["continuation_id"].n_unique()},
            outputs={"judged": len(judged), "item scores": len(scored)},
        )


if __name__ == "__main__":
    main(requested_name())

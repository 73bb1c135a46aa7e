"""Evaluate one system: benchmark likelihoods, and its continuations by the training and the held-out judge."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import polars as pl
import typer

from alignslm import tables
from alignslm.benchmarks.continuation import GrammarCheck, judged_rows
from alignslm.benchmarks.spoken import measure_speech
from alignslm.config.evaluation import Evaluation
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.loading import load_execution, load_experiment
from alignslm.encoder import Encoder, load_encoder
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, agreed, once
from alignslm.judge import asks_a_server, load_judge
from alignslm.judge.rows import DurableJudge, stories_of
from alignslm.progress import stage
from alignslm.prompts import read_prompts
from alignslm.shards import map_table, map_tasks, work_folder
from stages import layout

if TYPE_CHECKING:
    from alignslm.lm.checkpoint import UnitLm


def _grammar(experiment: Experiment) -> GrammarCheck | None:
    if experiment.corpus.kind != "storyworld":
        return None
    from alignslm.storyworld.grammar import can_continue

    return can_continue


def _speech(
    system: str, continuations: pl.DataFrame, experiment: Experiment, execution: Execution, work: Path
) -> pl.DataFrame:
    """Measure every continuation's sound; its own length stands beside what was measured."""
    folder = layout.sample(system)
    loaded = once(load_encoder, experiment.encoder, layout.ENCODER, device=execution.device)
    contract = tables.contract_of(tables.CONTINUATIONS, folder / "continuations.parquet")
    encoder = agreed(loaded, contract, mine=layout.ENCODER, theirs=folder)
    measured = map_table(
        tables.SPEECH,
        folder / "speech",
        WithModel(encoder, partial(_measure, continuations=continuations)),
        folder=work,
        shard_rows=execution.shard_rows,
        label=f"eval@{system} sound",
        pool=pool_of(execution),
    )
    lengths = tables.read(tables.SPEECH, folder / "speech", ["continuation_id", "num_samples", "sample_rate_hz"])
    return lengths.join(pl.concat(measured), on="continuation_id", validate="1:1")


def _measure(rows: pl.DataFrame, encoder: Encoder, *, continuations: pl.DataFrame) -> pl.DataFrame:
    return measure_speech(rows, continuations, encoder)


def _judged(system: str, experiment: Experiment, execution: Execution, work: Path) -> pl.DataFrame:
    folder = layout.sample(system)
    continuations = tables.read(tables.CONTINUATIONS, folder / "continuations.parquet")
    transcripts = tables.read(tables.TRANSCRIPTS, folder / "transcripts.parquet")
    speech = _speech(system, continuations, experiment, execution, work / "sound")
    stories = stories_of(continuations, transcripts, read_prompts(*layout.PROMPT_TABLES))
    params = experiment.params
    asked = {
        "judge": (experiment.judge, params.judge),
        "heldout_judge": (experiment.heldout_judge, params.heldout_judge),
    }
    judges = {
        name: DurableJudge(
            once(load_judge, config, layout.judge(choice), device=execution.device),
            folder=work / name,
            shard_rows=execution.shard_rows,
            label=f"eval@{system} {name}",
            pool=None if asks_a_server(config) else pool_of(execution),
        )
        for name, (config, choice) in asked.items()
    }
    return judged_rows(stories, continuations, speech, judges, model=system, grammar=_grammar(experiment))


def _item_scores(system: str, experiment: Experiment, execution: Execution, work: Path) -> pl.DataFrame:
    control = experiment.params.controls.get(system)
    if control and (control.source == "corpus" or control.temperature_scale != 1.0):
        # A likelihood knows no temperature: that system's are its checkpoint's, reported there.
        return pl.DataFrame(schema=dict(tables.ITEM_SCORES.schema))
    from alignslm.lm.checkpoint import load_lm  # seconds to import, and not every system needs it

    rows = execution.shard_rows
    source = layout.checkpoint(experiment.params.checkpoint_of(system))
    lm = once(load_lm, source, device=execution.device)
    for folder in map(layout.benchmark, experiment.params.benchmarks):
        lm = agreed(lm, tables.contract_of(tables.ITEMS, folder), mine=source, theirs=folder)
    scored = map_tasks(
        [cut for name in experiment.params.benchmarks for cut in _cuts(name, shard_rows=rows)],
        WithModel(
            lm,
            partial(_score, config=experiment.params.evaluation, model=system, batch_rows=execution.rows_at_once),
        ),
        folder=work / f"shards-of-{rows}",
        label=f"eval@{system} items",
        pool=pool_of(execution),
    )
    return pl.concat(scored)


class _Cut(NamedTuple):
    """Items of whole pairs."""

    benchmark: str
    items: pl.DataFrame


def _cuts(name: str, *, shard_rows: int) -> Iterator[_Cut]:
    from alignslm.benchmarks.scoring import COLUMNS

    items = tables.read(tables.ITEMS, layout.benchmark(name), COLUMNS)
    for pairs in items.select("pair_id").unique().sort("pair_id").iter_slices(shard_rows):
        yield _Cut(name, items.join(pairs, on="pair_id", how="semi"))


def _score(cut: _Cut, lm: "UnitLm", *, config: Evaluation, model: str, batch_rows: int) -> pl.DataFrame:
    from alignslm.benchmarks.scoring import score_items

    return score_items(cut.items, lm, config, benchmark=cut.benchmark, model=model, batch_rows=batch_rows)


def _work(system: str, experiment: Experiment) -> AbstractContextManager[Path]:
    params = experiment.params
    values = {
        "encoder": experiment.encoder,
        "judge": experiment.judge,
        "heldout_judge": experiment.heldout_judge,
        "evaluation": params.evaluation,
        "benchmarks": json.dumps(params.benchmarks),
    }
    inputs = [
        *layout.PROMPT_TABLES,
        layout.ENCODER,
        *map(layout.judge, {params.judge, params.heldout_judge}),
        *map(layout.benchmark, params.benchmarks),
        layout.sample(system),
        layout.checkpoint(experiment.params.checkpoint_of(system)),
    ]
    return work_folder(f"eval-{system}", script=__file__, params=values, inputs=inputs)


def main(system: Annotated[str, typer.Argument(help="a control or a round of params.yaml")]) -> None:
    """Run the stage for one system."""
    with stage(f"eval@{system}") as log:
        experiment, execution = load_experiment(), load_execution()
        folder = layout.evaluation(system)
        with _work(system, experiment) as work:
            judged = _judged(system, experiment, execution, work / "judged")
            tables.write(judged, tables.JUDGED, folder / "judged.parquet")
            scored = _item_scores(system, experiment, execution, work / "items")
            tables.write(scored, tables.ITEM_SCORES, folder / "item_scores.parquet")
        log.rows(
            inputs={"continuations": judged["continuation_id"].n_unique()},
            outputs={"judged": len(judged), "item scores": len(scored)},
        )


if __name__ == "__main__":
    typer.run(main)

"""The inputs of a report, read from the artifacts of one experiment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ConfigDict

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.experiment import BASE, Experiment
from alignslm.config.model import Config
from alignslm.figures.corpus_level import WORD_ERRORS, word_errors
from alignslm.integrity import read_json
from alignslm.pairs.counts import PairCounts
from alignslm.report.examples import Example, first_changes, first_prompts, read_examples
from alignslm.report.systems import evaluated, last_round, topline
from alignslm.training_log import BestCheckpoint, Change, LogRow

NUM_EXAMPLES = 4
MAX_CLIPS = 32  # of the examples: the page contains their audio
ALIKE = 0.005  # scores of the page, which has two decimals, are the same
RECORDED = "original-continuations"  # the system name in the mos tables
RECORDED_SPEECH = ("original-prompts", RECORDED)
CONFIG_KEYS = ("corpus", "encoder", "lm", "vocoder", "asr", "mos", "judge", "heldout_judge", "selector")


class TrainingLog(Config):
    """artifacts/training_logs/<checkpoint>.json."""

    model_config = ConfigDict(allow_inf_nan=True)  # a diverged run must not break its report

    steps: int
    best: BestCheckpoint | None
    change: Change | None = None
    log: tuple[LogRow, ...]


class GuardLog(Config):
    """artifacts/training_logs/<guard>.json: rows of GUARD, which of them is kept, and why in words."""

    steps_of: str
    best: str
    outcome: str
    kept: int
    steps: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class RoundTables:
    """SCORES of one round and what became of its prompts."""

    scores: pl.DataFrame
    counts: PairCounts


@dataclass(frozen=True)
class ReportInputs:
    """CONTINUATION_METRICS, ITEM_SCORES, MOS and WORD_ERRORS, TRANSCRIPTS by model, inputs of figures and examples.

    `changes` is `first_changes` of the last round against base; `picked` are the prompts with the largest and the
    smallest change, and `examples` the first ones by id whose scores are not the same.
    """

    experiment: Experiment
    judged: pl.DataFrame
    item_scores: pl.DataFrame
    mos: pl.DataFrame
    word_errors: pl.DataFrame
    transcripts: Mapping[str, pl.DataFrame]
    rounds: Mapping[str, RoundTables]
    training: Mapping[str, TrainingLog]
    guards: Mapping[str, GuardLog]
    changes: pl.DataFrame
    picked: tuple[Example, ...]
    examples: tuple[Example, ...]

    @property
    def alike(self) -> int:
        """How many prompts the last round and base score the same."""
        return self.changes.filter(pl.col("change").abs() < ALIKE).height


def read_inputs(artifacts: Path, experiment: Experiment) -> ReportInputs:
    """Read everything the report needs from the artifacts folder; TableError names what is missing."""
    models, rounds = evaluated(experiment), experiment.params.rounds
    baselines = [name for name in experiment.params.checkpoints if name not in rounds]
    made, rated = Artifacts(artifacts), (*experiment.params.systems, *RECORDED_SPEECH)
    judged = pl.concat(tables.read(tables.CONTINUATION_METRICS, made.judged(model)) for model in models)
    scored = [tables.read(tables.ITEM_SCORES, made.item_scores(model)) for model in models]
    changes = first_changes(judged, last_round(experiment), BASE)
    changed = changes.filter(pl.col("change").abs() >= ALIKE)
    count = max(1, min(NUM_EXAMPLES, MAX_CLIPS // (len(models) + 1)))
    shown = first_prompts(judged if changed.is_empty() else changed, count)
    ends = dict.fromkeys(changes["prompt_id"].gather([-1, 0] if len(changes) else []))
    return ReportInputs(
        experiment=experiment,
        judged=judged,
        item_scores=pl.concat(scored),
        mos=pl.concat(tables.read(tables.MOS, made.mos_of(name)) for name in rated),
        word_errors=read_word_errors(made, experiment, judged),
        transcripts={model: tables.read(tables.TRANSCRIPTS, made.sample(model).transcripts) for model in models},
        rounds={name: _read_round(made, item.pairs) for name, item in rounds.items()},
        training={name: read_json(made.training(name), TrainingLog) for name in (BASE, *baselines, *rounds)},
        guards={name: read_json(made.training(name), GuardLog) for name in experiment.params.guards},
        changes=changes,
        picked=read_examples(
            artifacts, judged, models=[BASE, last_round(experiment)] if ends else [], prompt_ids=[*ends]
        ),
        examples=read_examples(artifacts, judged, models=models, prompt_ids=shown),
    )


def read_word_errors(made: Artifacts, experiment: Experiment, judged: pl.DataFrame) -> pl.DataFrame:
    """Count the word errors of the ground-truth continuations: original recordings and resynthesized.

    No rows if the texts are not known, or if the experiment has no topline.
    """
    ground_truth = topline(experiment)
    if ground_truth not in evaluated(experiment):
        return pl.DataFrame(schema=WORD_ERRORS)
    prompts = tables.read(tables.PROMPTS, made.prompts).filter(split=experiment.params.evaluation.split)
    known = prompts.select("prompt_id", text="continuation_text").drop_nulls()
    synthesized = judged.filter(model=ground_truth).select("prompt_id", source_id="continuation_id").unique()
    sample = made.sample(ground_truth)
    references = {
        ground_truth: (sample.transcripts, known.join(synthesized, on="prompt_id")),
        RECORDED: (sample.recorded, known.with_columns(source_id="prompt_id")),
    }
    return pl.concat(
        word_errors(texts, tables.read(tables.TRANSCRIPTS, transcripts), system=system)
        for system, (transcripts, texts) in references.items()
    )


def _read_round(made: Artifacts, name: str) -> RoundTables:
    scores = tables.read(tables.SCORES, made.table("scores", name))
    return RoundTables(scores, read_json(made.pair_counts(name), PairCounts))

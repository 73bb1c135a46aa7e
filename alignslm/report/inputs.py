"""What a report is made of, read from the artifacts of one experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import polars as pl
from pydantic import ConfigDict, ValidationError

from alignslm import tables
from alignslm.benchmarks.conventions import Convention
from alignslm.config.benchmarks import Reformatted
from alignslm.config.evaluation import BenchmarkConfig
from alignslm.config.experiment import BASE, Experiment, preference_trainer
from alignslm.config.model import Config
from alignslm.config.models import Bootstrap
from alignslm.config.sources import FolderSource
from alignslm.report.columns import ReportError
from alignslm.report.corpus_level import WORD_ERRORS, word_errors
from alignslm.report.examples import Example, read_examples

NUM_EXAMPLES = 4
RECORDED = "recorded-continuations"  # as the stage mos names them


class TrainingStep(Config):
    """What the trainer logged at one optimiser step, by the trainer's own names."""

    model_config = ConfigDict(allow_inf_nan=True)  # a diverged run is to be shown, not to break its report

    step: int
    figures: dict[str, float]


class BestStep(Config):
    """The step whose weights were kept, by reward accuracy on the validation pairs."""

    model_config = ConfigDict(allow_inf_nan=True)

    step: int
    reward_accuracy: float
    reward_margin: float


class TrainingLog(Config):
    """artifacts/training/<checkpoint>.json."""

    steps: int
    best: BestStep | None
    log: tuple[TrainingStep, ...]


class Thresholds(Config):
    """Between which scores a round made its pairs (s_c and s_r of the paper)."""

    init_from: str
    pairs: str
    min_chosen_score: float
    max_rejected_score: float


class Measured(Config):
    """A benchmark's kind, its split where the release has some, and the folder's name of a reformatted copy."""

    kind: str
    split: str | None
    copy_of: str | None


class Setting(Config):
    """The choices that a reader must know to read the numbers. `benchmarks` has them by their names in the report.

    `convention` names the likelihood convention that is reported, as behind the @ of the others.
    """

    models: tuple[str, ...]
    ceiling_model: str
    checkpoints: tuple[str, ...]
    rounds: dict[str, Thresholds]
    benchmarks: dict[str, Measured]
    convention: str
    choices: dict[str, str]
    losses: dict[str, float]
    beta: float
    drift: float | None
    split: str
    draws: int
    training_draws: int
    bootstrap: Bootstrap
    seed: int

    @property
    def previous(self) -> dict[str, str]:
        """Round -> the checkpoint it was trained from."""
        return {name: item.init_from for name, item in self.rounds.items()}

    @property
    def last_round(self) -> str:
        """The round that is reported as the result."""
        return list(self.rounds)[-1]


@dataclass(frozen=True)
class RoundTables:
    """SCORES, PAIRS (without units) and REJECTIONS of one round."""

    scores: pl.DataFrame
    pairs: pl.DataFrame
    rejections: pl.DataFrame


@dataclass(frozen=True)
class ReportInputs:
    """JUDGED, ITEM_SCORES, MOS and WORD_ERRORS rows, TRANSCRIPTS by model, and what the figures and examples need."""

    setting: Setting
    judged: pl.DataFrame
    item_scores: pl.DataFrame
    mos: pl.DataFrame
    word_errors: pl.DataFrame
    transcripts: Mapping[str, pl.DataFrame]
    rounds: Mapping[str, RoundTables]
    training: Mapping[str, TrainingLog]
    examples: tuple[Example, ...]


def setting_of(experiment: Experiment) -> Setting:
    """Collect what the report says about an experiment. Models: baselines, rounds, then the topline."""
    params, evaluation = experiment.params, experiment.params.evaluation
    convention = Convention(evaluation.context, evaluation.normalisation, evaluation.score_eos)
    rounds = {name: item for name, item in params.rounds.items() if name in params.systems}
    trainer = preference_trainer(experiment, list(rounds)[-1])
    speech, feedback = ("corpus", "encoder", "lm", "vocoder", "asr", "mos"), ("judge", "heldout_judge", "selector")
    return Setting(
        models=tuple(params.ordered_systems),
        ceiling_model=next(iter(params.toplines), "ground-truth"),
        checkpoints=(BASE, *(name for name in params.checkpoints if name not in rounds), *rounds),
        rounds={
            name: Thresholds(
                init_from=item.init_from,
                pairs=item.pairs,
                min_chosen_score=item.rule.min_chosen_score,
                max_rejected_score=item.rule.max_rejected_score,
            )
            for name, item in rounds.items()
        },
        benchmarks={name: _measured(config) for name, config in experiment.benchmarks.items()},
        convention=convention.name(has_context=True),
        choices={key: getattr(params, key) for key in (*speech, *feedback)}
        | {"trainer": params.checkpoints[list(rounds)[-1]].trainer},
        losses={str(name): weight for name, weight in trainer.losses.items()},
        beta=trainer.beta,
        drift=getattr(experiment.corpus, "drift", None),
        split=evaluation.split,
        draws=evaluation.draws,
        training_draws=params.sampling.draws,
        bootstrap=evaluation.bootstrap,
        seed=params.seeds.evaluation,
    )


def _measured(config: BenchmarkConfig) -> Measured:
    source = config.data if isinstance(config, Reformatted) else None
    copied = PurePath(source.path).name if isinstance(source, FolderSource) else None
    return Measured(kind=config.kind, split=getattr(config, "split", None), copy_of=copied)


def read_inputs(artifacts: Path, setting: Setting) -> ReportInputs:
    """Read everything the report needs from the folder of artifacts; TableError names what is missing."""
    models = setting.models
    evaluations = {model: artifacts / "eval" / model for model in models}
    judged = [tables.read(tables.JUDGED, folder / "judged.parquet") for folder in evaluations.values()]
    scored = [tables.read(tables.ITEM_SCORES, folder / "item_scores.parquet") for folder in evaluations.values()]
    return ReportInputs(
        setting=setting,
        judged=pl.concat(judged),
        item_scores=pl.concat(scored),
        mos=_read_mos(artifacts / "mos"),
        word_errors=_read_word_errors(artifacts, setting, pl.concat(judged)),
        transcripts={
            model: tables.read(tables.TRANSCRIPTS, artifacts / "samples" / model / "transcripts.parquet")
            for model in models
        },
        rounds={name: _read_round(artifacts, item.pairs) for name, item in setting.rounds.items()},
        training=_read_training(artifacts / "training", setting.checkpoints),
        examples=read_examples(artifacts, pl.concat(judged), models=models, split=setting.split, count=NUM_EXAMPLES),
    )


def _read_mos(folder: Path) -> pl.DataFrame:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ReportError(f"{folder} holds no predicted scores. Make them with `dvc repro mos`.")
    return pl.concat([tables.read(tables.MOS, file) for file in files])


def _read_word_errors(artifacts: Path, setting: Setting, judged: pl.DataFrame) -> pl.DataFrame:
    """Count what the recogniser mishears of the true continuations: as recorded, and through units and vocoder.

    No row where the texts are not known, or the true continuations are no system of the experiment.
    """
    ceiling = setting.ceiling_model
    if ceiling not in setting.models:
        return pl.DataFrame(schema=WORD_ERRORS)
    prompts = tables.read(tables.PROMPTS, artifacts / "prompts.parquet").filter(split=setting.split)
    known = prompts.select("prompt_id", text="continuation_text").drop_nulls()
    spoken = judged.filter(model=ceiling).select("prompt_id", source_id="continuation_id").unique()
    references = {
        ceiling: ("transcripts", known.join(spoken, on="prompt_id")),
        RECORDED: ("recorded", known.with_columns(source_id="prompt_id")),
    }
    folder = artifacts / "samples" / ceiling
    return pl.concat(
        word_errors(told, tables.read(tables.TRANSCRIPTS, folder / f"{name}.parquet"), system=system)
        for system, (name, told) in references.items()
    )


def _read_round(artifacts: Path, name: str) -> RoundTables:
    columns = ["pair_id", "prompt_id", "split", "chosen_id", "rejected_id", "margin"]
    return RoundTables(
        scores=tables.read(tables.SCORES, artifacts / "scores" / f"{name}.parquet"),
        pairs=tables.read(tables.PAIRS, artifacts / "pairs" / f"{name}.parquet", columns),
        rejections=tables.read(tables.REJECTIONS, artifacts / "rejections" / f"{name}.parquet"),
    )


def _read_training(folder: Path, names: Sequence[str]) -> dict[str, TrainingLog]:
    files = {name: folder / f"{name}.json" for name in names}
    return {name: _read_log(path) for name, path in files.items() if path.exists()}


def _read_log(path: Path) -> TrainingLog:
    try:
        return TrainingLog.model_validate_json(path.read_text())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ReportError(f"{path} is no training log ({faults}). Remake it with `dvc repro`.") from error

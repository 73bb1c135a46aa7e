"""What other rules would have made of the scores of a round: the answer of `alignslm yield`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.experiment import Experiment
from alignslm.config.feedback import JudgeConfig, NgramJudgeConfig, SelectorConfig, StoryLMJudgeConfig, Weights
from alignslm.config.loading import load_config, load_execution
from alignslm.config.model import Config
from alignslm.config.own_code import PythonJudgeConfig
from alignslm.judge import is_api_judge, load_judge
from alignslm.judge.rows import join_judge_inputs, score
from alignslm.own_code import FOLDER
from alignslm.pairs.counterfactual import HELDOUT, BestOf, PairYield, Rules, best_of, pair_yield
from alignslm.pairs.own import load_selector
from alignslm.pairs.streaming import BATCH_ROWS, Batch, Sources, iter_aligned_batches
from alignslm.prompts import read_prompts

CALCULATED = (NgramJudgeConfig, StoryLMJudgeConfig, PythonJudgeConfig)  # judges that score a round in seconds
FEW = 8  # N beyond which only its powers of two, and the last one, have a row
Settings = Sequence[tuple[str, ...]]


class YieldError(ValueError):
    """A question about pairs that the tables cannot answer."""


class Row(Config):
    """What some settings give; none for params.yaml as it is."""

    settings: tuple[str, ...]
    found: PairYield


class Trade(Config):
    """N continuations of as many prompts as the round's judge calls are enough for; `pairs` is None for N = 1."""

    best: BestOf
    prompts: float
    pairs: float | None


class Answer(Config):
    """What `alignslm yield` prints; `heldout_judge` is None if it takes a server or a large model, or is not there."""

    name: str
    judge: str
    heldout_judge: str | None
    prompts: int
    num_continuations: int
    rows: tuple[Row, ...]
    trades: tuple[Trade, ...]

    @property
    def judge_calls(self) -> int:
        """Continuations of train prompts that were judged."""
        return self.prompts * self.num_continuations


class Judged:
    """A round's tables, and its scores by any judge that the run has prepared."""

    def __init__(self, root: Path, experiment: Experiment, name: str) -> None:
        self.root, self.experiment, self.name = root, experiment, name
        self.artifacts = Artifacts(root / "artifacts")
        of = self.artifacts.table
        sources = Sources(of("scores", name), of("continuations", name), self.artifacts.prompts)
        steps = list(iter_aligned_batches(sources, BATCH_ROWS, units=True))
        self.batch = Batch(*(pl.concat(parts) for parts in zip(*steps, strict=True)))
        self._scores = {experiment.params.judge: self.batch.scores}

    def by(self, judge: str) -> Batch:
        """Return the tables with the scores of a judge. Raises YieldError if it is asked over the network."""
        if judge not in self._scores:
            self._scores[judge] = self._judge(judge)
        return self.batch._replace(scores=self._scores[judge])

    def opinion(self, judge: str) -> tuple[str, pl.DataFrame] | None:
        """Return the held-out judge and its scores, for rows of another judge; None if it would take long or cost."""
        params = self.experiment.params
        other = params.heldout_judge if judge != params.heldout_judge else params.judge
        if other not in self._scores:
            quick = isinstance(self.experiment.heldout_judge, CALCULATED)
            if not quick or not self.artifacts.judge(other).exists():
                return None
        return other, self.by(other).scores.select("continuation_id", pl.col("judge_score").alias(HELDOUT))

    def _judge(self, choice: str) -> pl.DataFrame:
        config: JudgeConfig = load_config("judge", choice, JudgeConfig, self.root)
        folder = self.artifacts.judge(choice)
        if is_api_judge(config) or not folder.exists():
            why = "is asked over the network" if is_api_judge(config) else f"is not prepared: {folder} does not exist"
            raise YieldError(f"judge {choice} {why}. Score by it with `dvc exp run -S judge={choice}`.")
        stories = join_judge_inputs(
            self.batch.continuations,
            tables.read(tables.TRANSCRIPTS, self.artifacts.table("transcripts", self.name)),
            read_prompts(*self.artifacts.prompt_tables),
        )
        judge = load_judge(config, folder, device=load_execution(self.root).device)
        return score(stories, judge, auto_bleu=self.experiment.params.auto_bleu).drop("reply").sort("continuation_id")


def answer(root: Path, experiment: Experiment, name: str, wanted: Settings) -> Answer:
    """Return what params.yaml and every combination of settings give of the preferences `name` (empty: the first).

    Raises YieldError for a name or a setting that does not exist, and TableError for a table that does not.
    """
    params = experiment.params
    name = name or next(iter(params.preferences), "")
    if name not in params.preferences:
        raise YieldError(f"params.yaml has no preferences {name!r}; it has {', '.join(params.preferences) or 'none'}")
    judged = Judged(root, experiment, name)
    draws = judged.batch.continuations["sample_index"].n_unique()
    code = judged.artifacts.own_code(f"selector/{params.selector}")
    now = Rules(params.weights, load_selector(experiment.selector, code=code), params.preferences[name], draws)
    rows = [
        Row(settings=texts, found=_found(judged, *_changed(texts, now, params.judge, root))) for texts in [(), *wanted]
    ]
    asked = judged.opinion(params.judge)
    prompts = rows[0].found.prompts
    return Answer(
        name=name,
        judge=params.judge,
        heldout_judge=asked and asked[0],
        prompts=prompts,
        num_continuations=draws,
        rows=tuple(rows),
        trades=tuple(_trades(judged, now, prompts)),
    )


def _found(judged: Judged, rules: Rules, judge: str) -> PairYield:
    asked = judged.opinion(judge)
    return pair_yield(judged.by(judge), rules, asked and asked[1])


def _trades(judged: Judged, now: Rules, prompts: int) -> Iterator[Trade]:
    asked = judged.opinion(judged.experiment.params.judge)
    for best in best_of(judged.batch, now, asked and asked[1]):
        wanted = best.num_continuations
        if wanted > FEW and wanted.bit_count() > 1 and wanted < now.num_continuations:
            continue
        affordable = prompts * now.num_continuations / wanted
        found = pair_yield(judged.batch, now._replace(num_continuations=wanted), None) if wanted > 1 else None
        yield Trade(best=best, prompts=affordable, pairs=found.pairs / prompts * affordable if found else None)


def _changed(texts: Sequence[str], now: Rules, judge: str, root: Path) -> tuple[Rules, str]:
    """Return rules and judge with some settings such as min_margin=0.5 in place. Raises YieldError."""
    for text in texts:
        key, _, value = text.partition("=")
        try:
            if key == "judge":
                judge = value
            elif key == "selector":
                now = now._replace(
                    selector=load_selector(load_config("selector", value, SelectorConfig, root), code=root / FOLDER)
                )
            elif key == "num_continuations":
                now = now._replace(num_continuations=_number_of(value, now.num_continuations))
            elif key.startswith("weights.") and (metric := key.partition(".")[2]) in Weights.model_fields:
                now = now._replace(weights=Weights.model_validate({**now.weights.model_dump(), metric: value}))
            elif key in JudgedPreferences.model_fields and key != "sampled_from":
                rules = {**now.thresholds.model_dump(), key: value}
                now = now._replace(thresholds=JudgedPreferences.model_validate(rules))
            else:
                metrics = [f"weights.{metric}" for metric in Weights.model_fields]
                known = [*list(JudgedPreferences.model_fields)[1:], *metrics, "num_continuations", "selector", "judge"]
                raise YieldError(f"{key} does not decide about pairs of given scores; choose {', '.join(known)}")
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise YieldError(f"{text}: {message}") from error
    return now, judge


def _number_of(value: str, available: int) -> int:
    if not (value.isdigit() and 2 <= int(value) <= available):
        raise YieldError(f"num_continuations={value}: choose 2 to {available}, as many as were sampled per prompt")
    return int(value)

"""Steps of the method without a pipeline: continuations, scores, preference pairs, training, evaluation.

Every function is also an attribute of the package: `import alignslm; alignslm.sample(...)`. Heavy libraries are
imported by the function that needs them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.load import Source, SourceError, load_lm, read_config
from alignslm.statistics import ANSWERS, Estimate, group_means, mean_interval
from alignslm.storage import temporary_folder

if TYPE_CHECKING:
    from alignslm.config.feedback import AutoBleu
    from alignslm.judge import Judge
    from alignslm.lm.checkpoint import UnitLM
    from alignslm.lm.draws import SampledContinuation

CANDIDATE_COLUMNS = {"prompt_id", "split", "prompt_units", "units", "finish_reason", *tables.SCORES.schema} - {
    "continuation_id",
    "sample_index",
}
BATCH_ROWS = 64


def read_audio(path: Path | str, *, sample_rate_hz: int) -> np.ndarray:
    """Return an audio file (wav, flac, ogg, mp3) as (samples,) float32, channels averaged, at `sample_rate_hz`."""
    from alignslm import audio

    waveform, found_hz = audio.decode(Path(path).read_bytes(), channels="mix")
    return audio.resample(waveform, from_hz=found_hz, to_hz=sample_rate_hz)


def write_audio(waveform: np.ndarray, path: Path | str, *, sample_rate_hz: int) -> None:
    """Write (samples,) float32 in the format of the file's suffix: .wav, .flac, .ogg or .mp3."""
    from alignslm.generation.take import write_audio

    write_audio(waveform, sample_rate_hz, Path(path))


def sample(
    lm: "UnitLM",
    prompts: Sequence[Sequence[int]],
    *,
    num_continuations: int,
    max_new_units: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> list[list["SampledContinuation"]]:
    """Continue every prompt (units) `num_continuations` times by nucleus sampling.

    A continuation depends only on model, prompt, its number, the seed and the sampling values, and is the one that
    `alignslm generate` would sample. Raises TooLongError if prompt and continuation exceed the model's positions.
    """
    from alignslm.config.feedback import Sampling
    from alignslm.generation.prompt import prompt_key
    from alignslm.generation.studio import PURPOSE
    from alignslm.lm.sampling import sample as draw
    from alignslm.provenance import row_seed

    draws = max(2, num_continuations)  # for the config's own check; the seeds say how many there are
    config = Sampling(num_continuations=draws, temperature=temperature, top_p=top_p, max_new_units=max_new_units)
    seeds = [
        [row_seed(seed, PURPOSE, f"{prompt_key(units)}/{number}") for number in range(num_continuations)]
        for units in prompts
    ]
    return draw(lm, prompts, seeds, config, batch_size=BATCH_ROWS)


def log_likelihoods(
    lm: "UnitLM",
    sequences: Sequence[Sequence[int]],
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    include_eos: bool = False,
) -> list[np.ndarray]:
    """Return the log-probability in nats of every unit, float64, one array (units,) per sequence.

    `contexts` (one per sequence) only condition. `include_eos` appends the end of sequence. In a model without BOS
    token the first unit of a sequence without context is not scored.
    """
    from alignslm.lm.likelihood import LikelihoodRequest, unit_log_likelihoods

    before = contexts if contexts is not None else [()] * len(sequences)
    items = [LikelihoodRequest(context, units, include_eos) for context, units in zip(before, sequences, strict=True)]
    return unit_log_likelihoods(lm, items, batch_size=BATCH_ROWS)


def score(
    judge: "Judge",
    prompts: Sequence[str],
    continuations: Sequence[str | None],
    *,
    auto_bleu: "AutoBleu" = "gslm",
) -> pl.DataFrame:
    """Judge texts: one row per continuation, in order, with the columns of the scores table and the raw `reply`.

    A continuation that is None or "" has status `empty`. `judge` may be any object with a method `judge(stories)`;
    `auto_bleu` names the definition of that column (`alignslm.metrics.auto_bleu`).
    """
    from alignslm.judge import rows

    numbers = [str(number) for number in range(len(prompts))]
    stories = pl.DataFrame(
        {
            "continuation_id": numbers,
            "prompt_id": numbers,
            "sample_index": 0,
            "prompt_text": prompts,
            "text": continuations,
            "status": ["ok" if text else "empty" for text in continuations],
        },
        schema_overrides={"text": pl.String},
    )
    return rows.score(stories, judge, auto_bleu=auto_bleu).drop("continuation_id", "prompt_id", "sample_index")


class Selection(NamedTuple):
    """The PAIRS table, and one row with its reason per prompt that gave none."""

    pairs: pl.DataFrame
    skipped: pl.DataFrame


def select_pairs(
    candidates: pl.DataFrame,
    *,
    min_chosen_score: float,
    max_rejected_score: float,
    min_margin: float,
    max_auto_bleu: float,
    max_per_side: int,
    min_words: int,
    metric_weights: Mapping[str, float] = MappingProxyType({"judge_score": 1.0}),
) -> Selection:
    """Select preference pairs by the paper's rule: chosen at or above a score, rejected at or below another.

    `candidates` has one row per continuation: prompt_id, split (train or valid), prompt_units, units, finish_reason
    (eos or length), and the columns of `score`. At most `max_per_side` best are paired with as many worst of
    a prompt. Raises SourceError if a column is missing, NoPairsError with the spread of the scores if the train split
    gives no pair.
    """
    from alignslm.config.curriculum import JudgedPreferences
    from alignslm.config.feedback import ThresholdSelector, Weights
    from alignslm.pairs.diagnosis import NoPairsError, explain_no_pairs
    from alignslm.pairs.selection import candidate_pool, reasons_of, select_pairs
    from alignslm.pairs.utility import utility

    if missing := sorted(CANDIDATE_COLUMNS - {*candidates.columns}):
        raise SourceError(f"candidates has no column {', '.join(missing)}, which select_pairs reads.")
    rules = JudgedPreferences(
        sampled_from="candidates",
        min_chosen_score=min_chosen_score,
        max_rejected_score=max_rejected_score,
        min_margin=min_margin,
        max_auto_bleu=max_auto_bleu,
    )
    selector = ThresholdSelector(
        kind="thresholds", max_chosen_per_prompt=max_per_side, max_rejected_per_prompt=max_per_side, min_words=min_words
    )
    weights = Weights.model_validate(dict.fromkeys(Weights.model_fields, 0.0) | {**metric_weights})
    number = pl.int_range(pl.len()).over("prompt_id")
    rows = candidates.with_columns(
        sample_index=number,
        continuation_id=pl.concat_str("prompt_id", number.cast(pl.String).str.zfill(6), separator="-"),
    )
    prompts = rows.group_by("prompt_id").agg(pl.col("split").first(), units=pl.col("prompt_units").first())
    pool = utility(candidate_pool(rows.select(tables.SCORES.schema.keys()), rows, prompts, rules), weights)
    pairs, skipped = select_pairs(pool, rows, prompts, selector=selector, round=rules)
    if pairs.filter(split="train").is_empty():
        reasons = reasons_of(skipped)
        raise NoPairsError(explain_no_pairs(pool, reasons, selector=selector, round=rules, name="candidates"))
    return Selection(pairs, skipped)


def train(
    init_from: Path | str,
    pairs: pl.DataFrame,
    trainer: Source,
    *,
    folder: Path | str,
    seed: int,
    warmup_steps: int = 0,
    device: str = "auto",
) -> "UnitLM":
    """Train a checkpoint on preference pairs (KTO: their sides) and return the result, also written to `folder`.

    `trainer` is a config like experiments/trainer/dpo.yaml. The best adapter on the `valid` pairs is kept in
    folder/adapter and merged into the weights, in float32. Raises TooFewPairsError below the trainer's min_pairs,
    DivergedError if weights or figures are not finite.
    """
    from alignslm.lm import checkpoint
    from alignslm.training.adapter import save_adapter_and_merge
    from alignslm.training.kto import train_offline
    from alignslm.training.trainer_setup import warn_if_worse

    lm, target = load_lm(init_from, device=device), Path(folder)
    with temporary_folder() as work:
        model, run, _ = train_offline(
            read_config("checkpoints", trainer),
            lm,
            pairs,
            warmup_steps=warmup_steps,
            seed=seed,
            batch_size=BATCH_ROWS,
            work=Path(work),
        )
        checkpoint.save_lm(save_adapter_and_merge(model, target / "adapter"), lm.vocabulary, lm.contract, target)
    warn_if_worse(run, target.name)
    return checkpoint.load_lm(target, device=device)


class Accuracy(NamedTuple):
    """Fraction of minimal pairs with a likelier positive side, its interval over pairs, and the ITEM_SCORES table."""

    estimate: Estimate
    scores: pl.DataFrame


def minimal_pairs(
    positives: Sequence[Sequence[int]],
    negatives: Sequence[Sequence[int]],
    *,
    contexts: Sequence[Sequence[int]] | None = None,
) -> pl.DataFrame:
    """Make benchmark items of units: one positive and one negative per pair, after a shared context if there is one."""
    from alignslm.benchmarks.scoring import COLUMNS

    before = contexts if contexts is not None else [()] * len(positives)
    rows = [
        {
            "item_id": f"{number:06d}-{polarity}",
            "pair_id": f"{number:06d}",
            "polarity": polarity,
            "context_units": list(context),
            "units": list(units),
            "subtype": "",
            "voice": "",
        }
        for number, (context, *sides) in enumerate(zip(before, positives, negatives, strict=True))
        for polarity, units in zip(("positive", "negative"), sides, strict=True)
    ]
    return pl.DataFrame(rows, schema={name: tables.ITEMS.schema[name] for name in COLUMNS})


def evaluate(
    lm: "UnitLM",
    items: pl.DataFrame | Path | str,
    *,
    likelihood: Literal["conditional", "joint"] = "conditional",
    reduction: Literal["mean", "sum"] = "mean",
    include_eos: bool = False,
) -> Accuracy:
    """Compare the likelihoods of minimal pairs, from `minimal_pairs` or from a benchmark's folder of the pipeline.

    The options are those of `evaluation` in params.yaml. A tie counts one half, a pair without a scored unit is
    missing, and the interval is of 95 % over pairs.
    """
    from alignslm.benchmarks.scoring import COLUMNS, score_items
    from alignslm.config.evaluation import Evaluation

    config = Evaluation(
        split="test", num_continuations=1, likelihood=likelihood, reduction=reduction, include_eos=include_eos
    )
    rows = items if isinstance(items, pl.DataFrame) else tables.read(tables.ITEMS, Path(items), COLUMNS)
    scores = score_items(rows, lm, config, benchmark="items", model=lm.model_id, batch_size=BATCH_ROWS)
    pairs, means = group_means(scores["correct"].to_numpy(), scores["pair_id"].to_numpy())
    return Accuracy(mean_interval(means, pairs, scale=ANSWERS), scores)

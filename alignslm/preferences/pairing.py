"""From rows of units to the pairs table, with counts that add up: rows = pairs + left out."""

from collections.abc import Sequence

import polars as pl

from alignslm import tables
from alignslm.config.model import Config
from alignslm.config.preferences import AnyPreferences, UnitPreferences
from alignslm.listing import problems_of, raise_problems
from alignslm.preferences.reading import SIDES
from alignslm.provenance import ContractError, UnitContract, content_id
from alignslm.user_errors import Problem

IDENTICAL = "chosen and rejected are the same units"
EMPTY = "nothing is left after what it shares with the prompt"
TOO_LONG = "longer than max_units"
DUPLICATE = "duplicate pair"
OVERLAPPING = "prompt is also in the validation split"
REASONS = (IDENTICAL, EMPTY, TOO_LONG, DUPLICATE, OVERLAPPING)


class PreferenceError(ValueError):
    """Imported preferences do not match their config, or give nothing to train on."""


class ImportCounts(Config):
    """Counts of imported preferences: `rows` = train_pairs + valid_pairs + the sum of `left_out`.

    `joined` counts sides whose first unit repeated the prompt's last and was dropped: cut from one utterance, the two
    would have been one run, and a language model of deduplicated units has never seen a repeat.
    """

    source: str
    rows: int
    train_pairs: int
    valid_pairs: int
    left_out: dict[str, int]
    joined: int


def require_units(config: AnyPreferences, contract: UnitContract) -> None:
    """Raise ContractError where given units are not, as far as is known, the encoder's."""
    if not isinstance(config, UnitPreferences):
        return
    if differing := config.units.differing(contract, mine="in the config"):
        raise ContractError(
            f"the preferences have other units than encoder {contract.encoder} (revision {contract.revision}) gives "
            f"({'; '.join(differing)}). Choose the encoder they were made with (`encoder` in params.yaml), or correct "
            "`units` in their file in experiments/preferences."
        )


def refuse(problems: Sequence[Problem], *, rows: int) -> None:
    """Raise PreferenceError listing the problems by kind with their places, if there are any."""
    cure = "Correct the rows, or columns and kind of the config (experiments/preferences)."
    raise_problems(PreferenceError, problems, among=f"{rows} rows of imported preferences", cure=cure)


def make_pairs(rows: pl.DataFrame, config: AnyPreferences, *, source: str) -> tuple[pl.DataFrame, ImportCounts]:
    """Return the table PAIRS and the counts of all rows from `read_slice`.

    A prompt serves one split only. No utility is known, so utilities and margin are null. Raises PreferenceError
    listing every invalid row, overlapping prompts if they are an error, and splits without pairs.
    """
    refuse(problems_of(rows), rows=len(rows))
    joined = rows if isinstance(config, UnitPreferences) and config.repeats == "keep" else _joined(rows)
    shared = sum(int((joined[side].list.len() < rows[side].list.len()).sum()) for side in SIDES[1:])
    marked = _marked(_with_ids(joined, config), config)
    crossing = marked.filter(reason=OVERLAPPING)
    if config.overlapping_prompts == "error":
        refuse([Problem("a training prompt also validates", where) for where in crossing["place"]], rows=len(rows))
    pairs = _table(marked.filter(pl.col("reason").is_null()), config)
    counts = dict(marked.drop_nulls("reason")["reason"].value_counts().iter_rows())
    train, valid = (len(pairs.filter(split=split)) for split in ("train", "valid"))
    if not (train and valid):
        raise PreferenceError(
            f"{len(rows)} rows of imported preferences give {train} training and {valid} validation pairs; both are "
            f"needed. Left out: {counts or 'none'}. Change files, valid_fraction or max_units of the config."
        )
    import_counts = ImportCounts(
        source=source,
        rows=len(rows),
        train_pairs=train,
        valid_pairs=valid,
        left_out={reason: counts.get(reason, 0) for reason in REASONS},
        joined=shared,
    )
    return pairs, import_counts


def _joined(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop the first unit of a side if it is the prompt's last."""
    last = pl.col("prompt").list.last()
    return rows.with_columns(
        pl.when(pl.col(side).list.first() == last).then(pl.col(side).list.slice(1)).otherwise(pl.col(side)).alias(side)
        for side in SIDES[1:]
    )


def _with_ids(rows: pl.DataFrame, config: AnyPreferences) -> pl.DataFrame:
    """Name prompts and sides by their units, and split prompts by hash if there are no validation files."""
    prompts = [content_id("given", units) for units in rows["prompt"].to_list()]
    sides = {
        f"{side}_id": [content_id("given", *ids) for ids in zip(prompts, rows[side].to_list(), strict=True)]
        for side in SIDES[1:]
    }
    share = config.valid_fraction
    split = rows["split"].to_list() if share is None else [_split(prompt, share) for prompt in prompts]
    return rows.with_columns(
        pl.Series("split", split, pl.String),
        pl.Series("prompt_id", prompts, pl.String),
        *(pl.Series(name, ids, pl.String) for name, ids in sides.items()),
    ).with_columns(pair_id=pl.concat_str("chosen_id", "rejected_id", separator="-"))


def _split(prompt_id: str, valid_fraction: float) -> str:
    return "valid" if int(content_id("given split", prompt_id)[:8], 16) < valid_fraction * 2**32 else "train"


def _marked(rows: pl.DataFrame, config: AnyPreferences) -> pl.DataFrame:
    """Add `reason`: the first reason why a row is excluded, null for pairs."""
    chosen, rejected = pl.col("chosen").list.len(), pl.col("rejected").list.len()
    units = pl.col("prompt").list.len() + pl.max_horizontal(chosen, rejected)
    long = pl.lit(value=False) if config.max_units is None else units > config.max_units
    validating = rows.filter(split="valid")["prompt_id"].unique()
    crossing = (pl.col("split") == "train") & pl.col("prompt_id").is_in(validating.implode())
    again = pl.col("pair_id").cum_count().over("split", "pair_id") > 1
    reasons = {
        IDENTICAL: pl.col("chosen_id") == pl.col("rejected_id"),
        EMPTY: (chosen == 0) | (rejected == 0),
        TOO_LONG: long,
        OVERLAPPING: crossing,
        DUPLICATE: again,
    }
    reason = pl.lit(None, pl.String)
    for name, applies in reversed(reasons.items()):
        reason = pl.when(applies).then(pl.lit(name)).otherwise(reason)
    return rows.with_columns(reason=reason)


def _table(rows: pl.DataFrame, config: AnyPreferences) -> pl.DataFrame:
    finish = pl.lit("eos" if config.append_eos else "length")
    units = {f"{side}_units": pl.col(side) for side in SIDES}
    unknown = pl.lit(None, pl.Float64)
    made = rows.with_columns(
        **units,
        chosen_finish_reason=finish,
        rejected_finish_reason=finish,
        chosen_utility=unknown,
        rejected_utility=unknown,
        margin=unknown,
    )
    return tables.conform(made, tables.PAIRS)

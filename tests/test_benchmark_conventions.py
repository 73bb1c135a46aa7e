"""Likelihood conventions read off the item scores, and what the report makes of them."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.conventions import Convention, conventions_of
from alignslm.benchmarks.scoring import score_items
from alignslm.figures.columns import EvalTables, columns_of
from alignslm.report.metrics import summarise
from tests.messages import names
from tests.test_benchmarks import CONFIG, items
from tests.tiny_lm import CONTRACT, VOCABULARY, naive_log_probs, tiny_lm

NO_JUDGED = pl.DataFrame(schema=dict(tables.CONTINUATION_METRICS.schema))
NAMES = ["conditional-mean", "conditional-mean-eos", "conditional-sum", "conditional-sum-eos"]
NAMES += [name.replace("conditional", "joint") for name in NAMES]


def scores(count=8, **changes):
    table = items(count).with_columns(**changes)
    return score_items(table, tiny_lm(), CONFIG, benchmark="b", model="m", batch_size=4), table


def test_every_convention_equals_its_definition_token_by_token():
    found, table = scores()
    conventions = dict(conventions_of(found))
    assert sorted(conventions) == sorted(NAMES)
    lm = tiny_lm()
    for name, convention in conventions.items():
        read = found.select("pair_id", nats=convention.log_likelihood("negative"), units=convention.units("negative"))
        for pair, nats, units in read.iter_rows():
            item = table.row(by_predicate=(pl.col("pair_id") == pair) & (pl.col("polarity") == "negative"), named=True)
            ids = VOCABULARY.encode([*item["context_units"], *item["units"]], bos=True, eos=True)
            per_token = naive_log_probs(lm, ids)[len(item["context_units"]) if name.startswith("conditional") else 0 :]
            per_token = per_token if name.endswith("eos") else per_token[:-1]
            assert units == len(per_token)
            assert nats == pytest.approx(sum(per_token) / (len(per_token) if "mean" in name else 1), abs=1e-5)


def test_the_declared_convention_is_the_reported_one():
    found, _ = scores()
    declared = dict(conventions_of(found))["conditional-mean"]
    assert found["positive_logprob"].equals(
        found.select(declared.log_likelihood("positive").alias("positive_logprob")).to_series()
    )
    assert found["correct"].equals(found.select(declared.correct().alias("correct")).to_series())


def test_items_without_context_have_no_conventions_about_it():
    found, _ = scores(context_units=pl.lit([], tables.UNITS))
    assert [name for name, _ in conventions_of(found)] == ["mean", "mean-eos", "sum", "sum-eos"]


def test_a_model_without_end_of_sequence_has_no_conventions_about_it_and_may_not_be_asked_for_one():
    lm = tiny_lm()
    bare = type(lm)(lm.model, VOCABULARY.model_copy(update={"eos_id": None, "bos_id": None}), CONTRACT, "bare")
    found = score_items(items(3), bare, CONFIG, benchmark="b", model="m", batch_size=4)
    assert [name for name, _ in conventions_of(found)] == [
        "conditional-mean",
        "conditional-sum",
        "joint-mean",
        "joint-sum",
    ]
    assert set(found["positive_context_units"]) == {3}  # of four: the first has nothing to be predicted from
    with pytest.raises(BenchmarkError) as error:
        score_items(
            items(3), bare, CONFIG.model_copy(update={"include_eos": True}), benchmark="b", model="r1", batch_size=4
        )
    names(error.value, "evaluation.include_eos", "'r1'", "false")


NATS = st.one_of(st.none(), st.just(math.nan), st.integers(-4, 0).map(float))
PARTS = st.fixed_dictionaries(
    {
        "context_logprob": NATS,
        "target_logprob": NATS,
        "eos_logprob": NATS,
        "context_units": st.integers(0, 2),
        "target_units": st.integers(0, 3),
    }
)


@settings(max_examples=150, deadline=None)
@given(PARTS, PARTS, st.sampled_from(["conditional", "joint"]), st.sampled_from(["mean", "sum"]), st.booleans())
def test_a_part_that_was_not_measured_measures_nothing(positive, negative, context, reduction, eos):
    frame = pl.DataFrame(
        [{f"{side}_{name}": value for side, parts in (("positive", positive), ("negative", negative)) for name, value in parts.items()}],  # noqa: E501
        schema={f"{side}_{name}": pl.Int32 if "units" in name else pl.Float64 for side in ("positive", "negative") for name in positive},  # noqa: E501
    )  # fmt: skip

    def oracle(parts):
        wanted = ["target", *(["context"] if context == "joint" else [])]
        nats = [parts[f"{name}_logprob"] for name in (*wanted, *(["eos"] if eos else []))]
        units = sum(parts[f"{name}_units"] for name in wanted) + eos
        if not units or any(value is None or math.isnan(value) for value in nats):
            return None
        return sum(nats) / (units if reduction == "mean" else 1)

    left, right = oracle(positive), oracle(negative)
    found = frame.select(Convention(context, reduction, eos).correct()).item()
    assert found == (None if left is None or right is None else 1.0 if left > right else 0.5 if left == right else 0.0)


def test_the_report_lists_conventions_beside_the_declared_figure_and_compares_that_alone():
    found, _ = scores(20)
    other = found.with_columns(pl.lit("base").alias("model"))
    report = summarise(
        EvalTables(NO_JUDGED, pl.concat([other, found]), {}),
        models=["base", "m"],
        rounds={},
        topline="true",
    )
    mine = {m.metric: m.value for m in report.metrics if m.model == "m"}
    assert sorted(mine) == ["accuracy", *(f"accuracy@{name}" for name in sorted(NAMES))]
    assert mine["accuracy"] == mine["accuracy@conditional-mean"]
    assert {c.metric for c in report.comparisons} == {"accuracy"}


def test_salmon_has_its_parts_and_no_mean_over_them():
    parts = pl.when(pl.col("pair_id") < "p3").then(pl.lit("rir_consistency")).otherwise(pl.lit("bg_alignment"))
    kind = pl.when(pl.col("pair_id") < "p3").then(pl.lit("consistency")).otherwise(pl.lit("alignment"))
    found, _ = scores(6, subtype=parts, type=kind)
    metrics = [metric for _, metric in columns_of(EvalTables(NO_JUDGED, found, {}), "m") if "@" not in metric]
    assert metrics == ["accuracy/bg_alignment", "accuracy/rir_consistency"]


def test_voices_are_averaged_before_pairs():
    """Two voices right and none wrong of one pair, one voice wrong of another: 1/2, where counting rows says 2/3."""
    found, _ = scores(3)
    made = found.with_columns(
        pl.Series("pair_id", ["a", "a", "b"]),
        pl.Series("voice", ["v", "w", "v"]),
        pl.Series("correct", [1.0, 1.0, 0.0]),
    )
    column = columns_of(EvalTables(NO_JUDGED, made, {}), "m")["b", "accuracy"]
    assert dict(zip(column.clusters, column.values, strict=True)) == {"a": 1.0, "b": 0.0}
    assert np.mean(column.values) == 0.5

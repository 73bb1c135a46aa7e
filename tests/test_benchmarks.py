import math

import numpy as np
import polars as pl
import pytest

from alignslm import tables
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.conventions import preferred
from alignslm.benchmarks.items import paired
from alignslm.benchmarks.scoring import score_items
from alignslm.config.evaluation import Evaluation
from alignslm.lm.likelihood import LikelihoodRequest, log_likelihoods
from tests.messages import names
from tests.tiny_lm import VOCABULARY, naive_log_probs, tiny_lm

CONFIG = Evaluation(
    split="test",
    num_continuations=2,
    likelihood="conditional",
    reduction="mean",
    include_eos=False,
)


def items(count=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for pair in range(count):
        context = rng.integers(0, 20, 4).tolist()
        rows += [
            {
                "item_id": f"{pair}-{polarity}",
                "pair_id": f"p{pair}",
                "polarity": polarity,
                "type": None,
                "subtype": "topic",
                "voice": "en",
                "text": "null",
                "frequency": None,
                "band": None,
                "length": None,
                "context_units": context,
                "units": rng.integers(0, 20, int(rng.integers(2, 7))).tolist(),
                "num_samples": 0,
                "audio_sha256": "",
                "audio": {"bytes": b"", "path": ""},
            }
            for polarity in ("positive", "negative")
        ]
    return pl.DataFrame(rows, schema=dict(tables.ITEMS.schema))


@pytest.mark.parametrize("context", ["conditional", "joint"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("include_eos", [True, False])
def test_item_scores_equal_a_loop_over_single_tokens(context, reduction, include_eos):
    lm, table = tiny_lm(), items()
    config = CONFIG.model_copy(update={"likelihood": context, "reduction": reduction, "include_eos": include_eos})
    scored = score_items(table, lm, config, benchmark="b", model="m", batch_size=4)
    for row in scored.iter_rows(named=True):
        for side in ("positive", "negative"):
            item = table.row(
                by_predicate=(pl.col("pair_id") == row["pair_id"]) & (pl.col("polarity") == side), named=True
            )
            ids = VOCABULARY.encode([*item["context_units"], *item["units"]], bos=True, eos=include_eos)
            nats = naive_log_probs(lm, ids)[4 if context == "conditional" else 0 :]
            expected = sum(nats) / len(nats) if reduction == "mean" else sum(nats)
            assert row[f"{side}_logprob"] == pytest.approx(expected, abs=1e-5)
            assert row[f"{side}_units"] == len(nats)
        assert row["correct"] == float(row["positive_logprob"] > row["negative_logprob"])


def test_row_order_and_batch_change_nothing():
    lm, table = tiny_lm(), items(20)
    one = score_items(table, lm, CONFIG, benchmark="b", model="m", batch_size=1)
    two = score_items(
        table.sample(fraction=1, shuffle=True, seed=3), lm, CONFIG, benchmark="b", model="m", batch_size=32
    )
    assert one.equals(two)


@pytest.mark.parametrize("size", [1, 32])
def test_sides_score_what_they_score_alone_to_the_last_bit(size):
    """They are read in one call, so that a context which both have is read once."""
    lm, pairs = tiny_lm(), paired(items(20))
    scores = score_items(items(20), lm, CONFIG, benchmark="b", model="m", batch_size=size)
    for side, suffix in (("positive", ""), ("negative", "_negative")):
        rows = pairs.select(f"context_units{suffix}", f"units{suffix}").iter_rows()
        requests = [LikelihoodRequest(context, units, eos=True) for context, units in rows]
        alone = log_likelihoods(lm, requests, batch_size=size)
        assert scores[f"{side}_context_logprob"].to_list() == [nats.context.sum() for nats in alone]
        assert scores[f"{side}_logprob"].to_list() == [nats.target[:-1].mean() for nats in alone]


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(-1.0, -2.0, 1.0), (-2.0, -1.0, 0.0), (-1.0, -1.0, 0.5), (math.nan, -1.0, None), (-1.0, None, None)],
)
def test_ties_count_half_and_what_is_not_measured_counts_nothing(positive, negative, expected):
    row = pl.DataFrame({"p": [positive], "n": [negative]}, schema={"p": pl.Float64, "n": pl.Float64})
    assert row.select(preferred(pl.col("p"), pl.col("n"))).item() == expected


def test_a_side_without_a_scored_unit_is_missing_not_wrong():
    table = items(1).with_columns(units=pl.when(pl.col("polarity") == "negative").then([]).otherwise("units"))
    [row] = score_items(
        table.cast({"units": tables.UNITS}), tiny_lm(), CONFIG, benchmark="b", model="m", batch_size=4
    ).to_dicts()
    assert (row["negative_logprob"], row["negative_units"], row["correct"]) == (None, 0, None)


def test_pairs_are_joined_by_key_and_faults_are_listed():
    table = items(3)
    broken = table.filter(pl.col("item_id") != "1-negative")
    with pytest.raises(BenchmarkError) as error:
        paired(broken)
    names(error.value, "1 of 3", "p1", "'en'", "positive")
    doubled = pl.concat([table, table.filter(pl.col("item_id") == "2-positive").with_columns(item_id=pl.lit("x"))])
    with pytest.raises(BenchmarkError) as raised:
        paired(doubled)
    names(raised.value, "p2", "'en'", "negative+positive+positive")

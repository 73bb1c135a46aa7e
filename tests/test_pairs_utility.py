"""Utility against a slow ranking and values worked out by hand."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.config.feedback import Weights
from alignslm.pairs.utility import utility
from alignslm.tables import SCORES

METRICS = ("judge_score", "ppl", "auto_bleu", "num_words")
DIRECTION = {"ppl": -1, "auto_bleu": -1, "num_words": 1}


def weights(**given_weights):
    return Weights(**(dict.fromkeys(METRICS, 0.0) | given_weights))


def table(rows):
    columns = ("continuation_id", "prompt_id", "sample_index", *METRICS, "status")
    return pl.DataFrame(rows, schema={name: SCORES.schema[name] for name in columns}, orient="row")


def pool(**columns):
    """Rows of one prompt, each column a list; what is not given is 1 and ok."""
    count = len(next(iter(columns.values())))
    whole = {name: [1] * count for name in METRICS} | {"status": ["ok"] * count} | columns
    return table([(f"c{i}", "p", i, *(whole[m][i] for m in METRICS), whole["status"][i]) for i in range(count)])


def slow_utility(rows, wanted):
    """The definition, row by row: mean of metrics on 1..5, by the average place among the pool's measured rows."""
    found = []
    for row in rows:
        total, weighted = sum(wanted.values()), 0.0
        for metric, weight in wanted.items():
            mine = row[metric] if row["status"] == "ok" else None
            if weight == 0 or weighted is None:
                continue
            if mine is None:
                weighted = None
                continue
            if metric != "judge_score":
                others = [r[metric] * DIRECTION[metric] for r in rows if r["status"] == "ok" and r[metric] is not None]
                mine *= DIRECTION[metric]
                below, same = sum(o < mine for o in others), sum(o == mine for o in others)
                place = below + (same - 1) / 2
                mine = 3.0 if len(others) == 1 else 1 + 4 * place / (len(others) - 1)
            weighted += mine * weight / total
        found.append(weighted)
    return found


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.sampled_from([1.0, 2.5, 4.0])),
        st.one_of(st.none(), st.sampled_from([1.5, 20.0, 300.0])),
        st.one_of(st.none(), st.sampled_from([0.0, 0.05, 0.5])),
        st.integers(0, 4),
        st.sampled_from(["ok", "ok", "ok", "empty", "failed"]),
    ),
    max_size=12,
)


@given(ROWS, st.tuples(*[st.sampled_from([0.0, 0.5, 2.0])] * 4).filter(any))
def test_equals_the_slow_definition(rows, given_weights):
    wanted = dict(zip(METRICS, given_weights, strict=True))
    scores = table([(f"c{i}", "p", i, *row) for i, row in enumerate(rows)])
    found = utility(scores, Weights(**wanted))["utility"].to_list()
    expected = slow_utility(scores.to_dicts(), wanted)
    assert [value is None for value in found] == [value is None for value in expected]
    assert [v for v in found if v is not None] == pytest.approx([v for v in expected if v is not None])


@given(st.lists(st.floats(1, 5), min_size=1, max_size=5), st.sampled_from([0.1, 1.0, 3.0]))
def test_judge_alone_is_the_judges_score_exactly(values, weight):
    assert utility(pool(judge_score=values), weights(judge_score=weight))["utility"].to_list() == values


def test_perplexity_alone_ranks_downwards_with_ties_sharing():
    found = utility(pool(ppl=[10.0, 40.0, 20.0, 20.0, 80.0]), weights(ppl=1))["utility"]
    assert found.to_list() == [5.0, 2.0, 3.5, 3.5, 1.0]


def test_mixture_by_hand():
    found = utility(pool(judge_score=[4.0, 2.0], num_words=[3, 9]), weights(judge_score=3, num_words=1))["utility"]
    assert found.to_list() == [0.75 * 4 + 0.25 * 1, 0.75 * 2 + 0.25 * 5]


def test_an_unused_metric_may_be_missing_and_a_used_one_may_not():
    scores = pool(judge_score=[4.0, 3.0], auto_bleu=[None, 0.0])
    assert utility(scores, weights(judge_score=1))["utility"].to_list() == [4.0, 3.0]
    assert utility(scores, weights(judge_score=1, auto_bleu=1))["utility"].to_list() == [None, 3.0]


def test_unjudged_rows_take_no_place_in_the_pool():
    scores = pool(num_words=[5, 9, 0, 99], status=["ok", "ok", "empty", "failed"])
    assert utility(scores, weights(num_words=1))["utility"].to_list() == [1.0, 5.0, None, None]


@pytest.mark.parametrize("metric", ["ppl", "auto_bleu", "num_words"])
def test_one_value_or_equal_values_stand_in_the_middle(metric):
    for count in (1, 3):
        assert utility(pool(**{metric: [1] * count}), weights(**{metric: 1}))["utility"].to_list() == [3.0] * count


def test_nan_is_not_measured():
    assert utility(pool(ppl=[float("nan"), 2.0]), weights(ppl=1))["utility"].to_list() == [None, 3.0]

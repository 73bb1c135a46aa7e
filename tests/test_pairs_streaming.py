"""Selection from tables on disk, batch by batch: how they are cut leaves no trace, and bad tables are refused."""

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignslm import tables
from alignslm.config.feedback import Weights
from alignslm.pairs.diagnosis import NoPairsError
from alignslm.pairs.streaming import iter_aligned_batches, stream_pairs
from alignslm.pairs.utility import metric_ranks, utility
from alignslm.tables import CONTINUATIONS, PAIRS, PROMPTS, SCORES, SKIPPED_PROMPTS, TableError
from tests.messages import names
from tests.pair_selection import JUDGE_ALONE, RULES, THRESHOLDS, frames, selected, written
from tests.test_pairs import BEST_WORST, pools

MIXTURE = Weights(judge_score=1, ppl=0.5, auto_bleu=0.5, num_words=0.5)
EASY = RULES.model_copy(update={"max_rejected_score": 4.0, "min_margin": 0.0})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pools(), st.sampled_from([THRESHOLDS, BEST_WORST]), st.sampled_from([JUDGE_ALONE, MIXTURE]))
def test_the_size_of_a_batch_changes_nothing(tmp_path, rows, selector, weights):
    sources = written(tmp_path, rows)
    whole, *cut = (
        outcome(sources, batch_size=size, rules=EASY, weights=weights, selector=selector) for size in (1000, 1, 3)
    )
    for made in cut:
        assert type(made) is type(whole)
        assert made == whole if isinstance(made, str) else same(made, whole)


def outcome(sources, **options):
    """What a selection gives, or says."""
    try:
        return selected(sources, **options)
    except NoPairsError as error:
        return str(error)


def same(made, expected):
    return made[0].equals(expected[0]) and made[1].equals(expected[1]) and made[2] == expected[2]


def test_the_pool_of_a_rank_is_the_whole_round_however_it_is_cut():
    scores = frames([{"prompt": "p", "score": 1.0, "ppl": ppl} for ppl in (5.0, 3.0, 3.0, float("nan"), -0.0, 0.0)])[0]
    ranked = Weights(judge_score=0, ppl=1, auto_bleu=0, num_words=1)
    whole = utility(scores, ranked)
    ranks = metric_ranks(scores.iter_slices(2), ranked)
    assert set(ranks) == {"ppl", "num_words"}
    assert pl.concat(utility(part, ranked, ranks) for part in scores.iter_slices(4)).equals(whole)
    places = [1 + 4 * place / 4 for place in (0, 1.5, 1.5, None, 3.5, 3.5) if place is not None]
    assert whole["utility"].drop_nulls().to_list() == [(place + 3) / 2 for place in places]


def prompts_of(number):
    return [{"prompt": f"p{i:03d}", "score": s, "units": [i, int(s)]} for i in range(number) for s in (4.0, 1.0, 2.5)]


def test_steps_cut_between_prompts_and_hold_every_row_once(tmp_path):
    sources = written(tmp_path, prompts_of(9))
    steps = list(iter_aligned_batches(sources, 4, units=True))
    assert len(steps) > 3
    for step in steps:
        assert step.scores["continuation_id"].equals(step.continuations["continuation_id"])
        assert set(step.prompts["prompt_id"]) == set(step.continuations["prompt_id"])
    assert pl.concat(step.continuations for step in steps).equals(tables.read(CONTINUATIONS, sources.continuations))


def test_a_file_grown_group_by_group_does_not_show_it(tmp_path, monkeypatch):
    monkeypatch.setattr("alignslm.tables.writing.GROUP_ROWS", 4)
    sources = written(tmp_path, prompts_of(9))
    options = {"weights": JUDGE_ALONE, "selector": THRESHOLDS, "round": RULES, "name": "r1"}
    content = set()
    for batch_size in (1, 5, 100):
        with (
            tables.open_table(PAIRS, tmp_path / "pairs.parquet") as pairs,
            tables.open_table(SKIPPED_PROMPTS, tmp_path / "skipped_prompts.parquet") as skipped_prompts,
        ):
            for made in stream_pairs(sources, **options, batch_size=batch_size):
                pairs.add(made.pairs)
                skipped_prompts.add(made.skipped_prompts)
        assert (pairs.rows, skipped_prompts.rows) == (9, 0)
        content.add((tmp_path / "pairs.parquet").read_bytes() + (tmp_path / "skipped_prompts.parquet").read_bytes())
    assert len(content) == 1
    tables.write(tables.read(PAIRS, tmp_path / "pairs.parquet"), PAIRS, tmp_path / "whole.parquet")
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "pairs.parquet").read_bytes()


@pytest.mark.parametrize("lost", ["scores", "continuations"])
@pytest.mark.parametrize("row", [4, 26])
def test_scores_of_other_draws_are_refused(tmp_path, lost, row):
    sources = written(tmp_path, prompts_of(9))
    table = {"scores": SCORES, "continuations": CONTINUATIONS}[lost]
    path = getattr(sources, lost)
    frame = tables.read(table, path)
    tables.write(frame.with_row_index("n").filter(pl.col("n") != row), table, path)
    kept = sources.continuations if lost == "scores" else sources.scores
    with pytest.raises(TableError) as told:
        selected(sources, batch_size=9)
    names(told.value, "dvc repro", kept, f"{frame['continuation_id'][row]!r}", path)


def test_draws_that_do_not_stand_together_are_refused(tmp_path):
    rows = [{"prompt": p, "score": s, "id": n} for p, s, n in (("p", 4.0, "a"), ("q", 4.0, "b"), ("p", 1.0, "c"))]
    with pytest.raises(TableError) as told:
        selected(written(tmp_path, rows), batch_size=10)
    names(told.value, "dvc repro", "'p'", "'c'", f"{tmp_path}/continuations.parquet")


def test_a_prompt_that_is_not_there_is_named(tmp_path):
    sources = written(tmp_path, prompts_of(3))
    tables.write(tables.read(PROMPTS, sources.prompts)[:2], PROMPTS, sources.prompts)
    with pytest.raises(TableError) as raised:
        selected(sources, batch_size=100)
    names(raised.value, "prompt_id", "3")

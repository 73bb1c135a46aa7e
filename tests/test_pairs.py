"""Pair selection against a loop written from the paper, and books that close."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alignslm.config.feedback import BestWorstSelector, QuantileSelector, ThresholdSelector, Weights
from alignslm.pairs.diagnosis import NoPairsError
from alignslm.pairs.selection import REASONS
from alignslm.tables import PAIRS, SKIPPED_PROMPTS, verify
from tests.messages import names
from tests.pair_selection import QUANTILES, RULES, THRESHOLDS, selected, written

BEST_WORST = BestWorstSelector(kind="best-worst", min_words=2)


@pytest.fixture(scope="module")
def select(tmp_path_factory):
    """What selection makes of rows: pairs, skipped prompts and the account."""
    folder = tmp_path_factory.mktemp("pairs")
    return lambda rows, **options: selected(written(folder, rows), **options)


def slow_candidates(mine, *, selector, rules):
    """Chosen and rejected candidates of one prompt by the paper's rules, judge_score as the utility."""
    for r in mine:
        r["value"] = r["score"] if r["status"] == "ok" else None
        r["veto"] = r["status"] == "ok" and (r["auto_bleu"] or 0) > rules.max_auto_bleu
    good = [
        r
        for r in sorted(mine, key=lambda r: (-(r["value"] or 0), r["id"]))
        if r["value"] is not None and r["auto_bleu"] is not None and not r["veto"]
        if r["num_words"] >= selector.min_words and r["units"]
    ]
    worst_first = sorted(mine, key=lambda r: (r["value"] or -1, r["id"]))
    if isinstance(selector, BestWorstSelector):
        bad = [r for r in worst_first if r["status"] == "empty" or r["value"] is not None]
        return good[:1], [r for r in bad if r not in good[:1]][:1]
    bad = [
        r for r in worst_first if r["status"] == "empty" or r["veto"] or (r["value"] or 9) <= rules.max_rejected_score
    ]
    return [r for r in good if r["value"] >= rules.min_chosen_score][: selector.max_chosen_per_prompt], bad[
        : selector.max_rejected_per_prompt
    ]


def slow_fits(chosen, rejected, *, selector, rules):
    if rejected["value"] is None or (rejected["veto"] and isinstance(selector, ThresholdSelector)):
        return True
    margin = chosen["value"] - rejected["value"]
    return margin >= rules.min_margin and margin > 0


def slow_reason(mine, good, bad):
    if all(r["value"] is None and not r["veto"] and r["status"] != "empty" for r in mine):
        return "no continuation scored"
    if not good or not bad:
        both = "neither chosen nor rejected candidate"
        return both if not good and not bad else "no rejected candidate" if good else "no chosen candidate"
    unlike = any(c["units"] != r["units"] for c in good for r in bad)
    return "margin too small" if unlike else "only identical units"


def slow_selection(rows, *, selector, rules):
    """One prompt at a time: {(chosen, rejected)} and {prompt: reason}."""
    pairs, reasons = set(), {}
    for prompt in {r["prompt"] for r in rows if r["split"] in ("train", "valid")}:
        mine = [r for r in rows if r["prompt"] == prompt]
        good, bad = slow_candidates(mine, selector=selector, rules=rules)
        unlike = [(c, r) for c in good for r in bad if c["units"] != r["units"]]
        made = {(c["id"], r["id"]) for c, r in unlike if slow_fits(c, r, selector=selector, rules=rules)}
        pairs |= made
        if not made:
            reasons[prompt] = slow_reason(mine, good, bad)
    return pairs, reasons


@st.composite
def pools(draw):
    """Small pools full of ties, nulls, vetoes, copies and silences; one sure train pair so that selection goes on."""
    splits = {p: draw(st.sampled_from(["train", "valid", "test"])) for p in "xyz"}
    row = st.fixed_dictionaries(
        {
            "prompt": st.sampled_from("xyz"),
            "units": st.sampled_from([[], [1], [1, 2], [3]]),
            "score": st.one_of(st.none(), st.sampled_from([1.0, 2.0, 2.5, 3.0, 3.5, 4.0])),
            "auto_bleu": st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.2])),
            "num_words": st.integers(0, 3),
            "status": st.sampled_from(["ok", "ok", "ok", "ok", "empty", "failed"]),
        }
    )
    rows = [r | {"split": splits[r["prompt"]]} for r in draw(st.lists(row, max_size=16))]
    sure = {"prompt": "w", "split": "train", "auto_bleu": 0.0, "num_words": 5, "status": "ok"}
    rows += [sure | {"units": [8], "score": 5.0}, sure | {"units": [9], "score": 1.0}]
    order = draw(st.permutations(range(len(rows))))
    return [
        r | {"id": f"{r['prompt']}-m-{number:02d}", "sample_index": number}
        for r, number in zip(rows, order, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(pools(), st.sampled_from([THRESHOLDS, BEST_WORST]), st.sampled_from([0.0, 1.0, 2.0]), st.integers(1, 20))
def test_equals_the_slow_loop_and_the_books_close(select, rows, selector, min_margin, batch_size):
    rules = RULES.model_copy(update={"min_margin": min_margin})
    pairs, skipped_prompts, books = select(rows, selector=selector, rules=rules, batch_size=batch_size)
    expected, reasons = slow_selection([dict(r) for r in rows], selector=selector, rules=rules)
    assert set(pairs.select("chosen_id", "rejected_id").iter_rows()) == expected
    assert len(pairs) == len(expected)
    assert dict(skipped_prompts.select("prompt_id", "reason").iter_rows()) == reasons
    verify(pairs, PAIRS, where="pairs")
    verify(skipped_prompts, SKIPPED_PROMPTS, where="skipped_prompts")
    accounted = {*pairs["prompt_id"], *skipped_prompts["prompt_id"]}
    assert accounted == {r["prompt"] for r in rows if r["split"] != "test"}
    assert set(reasons.values()) <= set(REASONS)
    assert books.train.prompts + books.valid.prompts == len(accounted)
    assert books.train.pairs + books.valid.pairs == len(expected)


@settings(max_examples=40, deadline=None)
@given(pools(), st.sampled_from([(0.7, 0.3), (0.5, 0.1), (0.9, 0.89)]), st.integers(1, 20))
def test_quantiles_are_thresholds_at_the_quantiles_of_the_rounds_utilities(select, rows, quantiles, batch_size):
    selector = QUANTILES.model_copy(update=dict(zip(("chosen_quantile", "rejected_quantile"), quantiles, strict=True)))
    measured = [r["score"] for r in rows if r["status"] == "ok" and r["score"] is not None and r["split"] != "test"]
    high, low = np.quantile(measured, quantiles)
    rules = RULES.model_copy(update={"min_margin": 0.0})
    pairs, skipped_prompts, books = select(rows, selector=selector, rules=rules, batch_size=batch_size)
    became = rules.model_copy(update={"min_chosen_score": high, "max_rejected_score": low})
    expected, reasons = slow_selection([dict(r) for r in rows], selector=THRESHOLDS, rules=became)
    assert set(pairs.select("chosen_id", "rejected_id").iter_rows()) == expected
    assert dict(skipped_prompts.select("prompt_id", "reason").iter_rows()) == reasons
    assert (books.min_chosen_score, books.max_rejected_score) == pytest.approx((high, low))
    assert high >= low


def test_the_account_tells_the_thresholds_of_a_rule_that_has_some(select):
    rows = [
        {"prompt": "w", "split": "train", "auto_bleu": 0.0, "num_words": 5, "status": "ok", "units": [n], "score": n}
        for n in (1.0, 5.0)
    ]
    rows = [row | {"units": [int(row["score"])]} for row in rows]
    assert select(rows, selector=THRESHOLDS).account.min_chosen_score == RULES.min_chosen_score
    assert select(rows, selector=BEST_WORST).account.min_chosen_score is None
    with pytest.raises(ValidationError, match="rejected_quantile"):
        QuantileSelector(**QUANTILES.model_dump() | {"chosen_quantile": 0.3})


def test_a_pair_carries_what_training_needs(select):
    rows = [
        {"prompt": "p", "score": 4.0, "units": [1, 2], "id": "good"},
        {"prompt": "p", "score": 1.0, "units": [3], "id": "bad"},
        {"prompt": "p", "score": 2.5, "units": [4], "id": "middle"},
    ]
    pairs, skipped_prompts, _ = select(rows)
    assert pairs.to_dicts() == [
        {
            "pair_id": "good-bad",
            "prompt_id": "p",
            "split": "train",
            "chosen_id": "good",
            "rejected_id": "bad",
            "prompt_units": [7],
            "chosen_units": [1, 2],
            "rejected_units": [3],
            "chosen_finish_reason": "length",
            "rejected_finish_reason": "length",
            "chosen_utility": 4.0,
            "rejected_utility": 1.0,
            "margin": 3.0,
        }
    ]
    assert skipped_prompts.is_empty()


def test_a_vetoed_continuation_is_rejected_whatever_its_score(select):
    rows = [
        {"prompt": "p", "score": 5.0, "auto_bleu": 0.11, "id": "babble"},
        {"prompt": "p", "score": 3.2, "auto_bleu": 0.1, "id": "speech"},
    ]
    pairs, *_ = select(rows)
    assert pairs.select("chosen_id", "rejected_id", "margin").row(0) == ("speech", "babble", pytest.approx(-1.8))


def test_perplexity_feedback_takes_lowest_against_highest_perplexity(select):
    rows = [{"prompt": "p", "score": None, "ppl": ppl, "id": f"ppl{ppl:g}"} for ppl in (30.0, 10.0, 90.0, 50.0)]
    rows += [{"prompt": "p", "score": None, "ppl": 2.0, "auto_bleu": 0.5, "id": "babble"}]
    pairs, *_ = select(rows, selector=BEST_WORST, weights=Weights(judge_score=0, ppl=1, auto_bleu=0, num_words=0))
    assert pairs.select("chosen_id", "rejected_id").rows() == [("ppl10", "ppl90")]


def test_ties_go_to_the_smaller_id_on_both_sides(select):
    rows = [
        {"prompt": "p", "score": score, "id": name} for name, score in zip("dcbafe", (4, 4, 4, 1, 1, 1), strict=True)
    ]
    one_each = THRESHOLDS.model_copy(update={"max_chosen_per_prompt": 1, "max_rejected_per_prompt": 1})
    pairs, *_ = select(rows, selector=one_each)
    assert pairs.select("chosen_id", "rejected_id").rows() == [("b", "a")]


def test_equal_utility_is_no_preference_even_without_a_margin(select):
    rows = [{"prompt": p, "score": s} for p, s in (("p", 3.0), ("p", 3.0), ("q", 3.0), ("q", 2.9))]
    pairs, skipped_prompts, _ = select(rows, selector=BEST_WORST, rules=RULES.model_copy(update={"min_margin": 0.0}))
    assert pairs["prompt_id"].to_list() == ["q"]
    assert skipped_prompts.rows() == [("p", "train", "margin too small")]


def test_silence_is_worst_and_has_no_margin(select):
    rows = [
        {"prompt": "p", "score": 4.0, "id": "speech"},
        {"prompt": "p", "score": 1.0, "id": "noise"},
        {
            "prompt": "p",
            "score": None,
            "ppl": None,
            "auto_bleu": None,
            "num_words": 0,
            "status": "empty",
            "id": "quiet",
        },
    ]
    pairs, *_ = select(rows, selector=BEST_WORST)
    assert pairs.select("rejected_id", "rejected_utility", "margin").rows() == [("quiet", None, None)]


def test_account_by_hand(select):
    sure = [{"prompt": "a", "score": 4.0, "units": [1, 2, 3]}, {"prompt": "a", "score": 1.0, "units": [4]}]
    babble = [
        {"prompt": "b", "score": 3.0, "units": [5]},
        {"prompt": "b", "score": 3.0, "units": [6, 7], "auto_bleu": 0.4},
    ]
    dull = [{"prompt": "c", "score": 2.5, "split": "valid"}, {"prompt": "d", "score": 2.5}]
    books = select(sure + babble + dull).account
    nothing = dict.fromkeys(REASONS, 0)
    assert books.train.model_dump() == {
        "prompts": 3,
        "prompts_with_pairs": 2,
        "pairs": 2,
        "skipped_prompts": nothing | {"neither chosen nor rejected candidate": 1},
        "mean_margin": 1.5,
        "mean_length_difference_units": 0.5,
        "vetoed_rejected_share": 0.5,
        "empty_rejected_share": 0.0,
    }
    assert (books.valid.prompts, books.valid.pairs, books.valid.mean_margin) == (1, 0, None)


def test_no_pair_at_all_names_counts_scores_and_keys(select):
    rows = [{"prompt": p, "score": s} for p in "ab" for s in (2.0, 2.9)]
    with pytest.raises(NoPairsError) as caught:
        select(rows)
    names(
        caught.value,
        "r1: none",
        "2",
        "4",
        "2.00",
        "25",
        "2.45",
        "75",
        "2.90",
        "judge_score",
        "preferences.r1.min_chosen_score",
        "3",
        "preferences.r1.max_rejected_score",
        "preferences.r1.min_margin",
        "1.5",
        "preferences.r1.max_auto_bleu",
        "0.1",
        "min_words",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "score": 3.0}, {"prompt": "a", "score": 3.0}], ("utility", "3.00")),
        ([{"prompt": "a", "score": None, "status": "failed"}], ("1",)),
        (
            [{"prompt": p, "score": None, "ppl": None, "status": "empty"} for p in "aabb"],
            ("4 of 4", "silence", "artifacts/speech", "experiments/asr"),
        ),
        ([{"prompt": "a", "score": 3.0, "split": "valid"}], ("1",)),
    ],
)
def test_no_pair_for_other_causes(select, rows, message):
    with pytest.raises(NoPairsError) as caught:
        select(rows)
    names(caught.value, *message)


@pytest.mark.parametrize(
    ("statuses", "facts"),
    [
        (["empty", "empty", "failed"], ("empty: 2", "failed: 1", "vocoder", "asr", "artifacts/speech")),
        (["truncated", "truncated", "empty"], ("truncated: 2", "empty: 1", "max_tokens")),
        (["too_long", "too_long", "failed"], ("too_long: 2", "sampling.max_new_units")),
    ],
)
def test_nothing_measured_is_told_by_the_judges_statuses(select, statuses, facts):
    with pytest.raises(NoPairsError) as caught:
        select([{"prompt": "a", "score": None, "status": status} for status in statuses])
    names(caught.value, *facts)
    assert "weight" not in str(caught.value)  # no weight would help

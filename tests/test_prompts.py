import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm import tables
from alignslm.config.models import Prompts
from alignslm.prompts import PromptError, make_prompts, split_units
from tests.messages import names

RUNS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=20)


@given(RUNS, st.floats(0, 8))
def test_a_cut_keeps_every_run_whole_and_never_passes_the_limit(runs, end_s):
    units, durations = [unit for unit, _ in runs], [duration for _, duration in runs]
    head, tail = split_units(units, durations, end_s=end_s, frame_rate_hz=25.0)
    assert head + tail == units
    assert sum(durations[: len(head)]) / 25.0 <= end_s + 1e-6
    if tail:
        assert sum(durations[: len(head) + 1]) / 25.0 > end_s


def corpus(count=8, end_s=0.4, split=None):
    ids = [f"u{number:02d}" for number in range(count)]
    splits = [split or ("train", "valid", "dev", "test")[number % 4] for number in range(count)]
    encoded = pl.DataFrame(
        {"utterance_id": ids, "split": splits, "units": [[1, 2, 3, 4]] * count, "durations": [[5, 5, 5, 5]] * count},
        schema=dict(tables.ENCODED.schema),
    )
    utterances = pl.DataFrame(
        {
            "utterance_id": ids,
            "prompt_text": [f"start {name}" for name in ids],
            "continuation_text": [f"end {name}" for name in ids],
            "prompt_end_s": [end_s] * count,
        },
        schema_overrides={"prompt_end_s": pl.Float64},
    )
    return encoded, utterances


CONFIG = Prompts(train=1, valid=1, dev=1, test=1, cut_at="sentence", max_duration_s=3.0, min_units=2)


def test_prompts_hold_units_rest_and_texts():
    prompts = make_prompts(*corpus(), CONFIG, frame_rate_hz=25.0)
    assert sorted(prompts["split"]) == ["dev", "test", "train", "valid"]
    assert prompts["units"].to_list() == [[1, 2]] * 4
    assert prompts["continuation_units"].to_list() == [[3, 4]] * 4
    assert all(text.startswith("start u") for text in prompts["prompt_text"])


def test_row_order_changes_nothing():
    encoded, utterances = corpus(40)
    one = make_prompts(encoded, utterances, CONFIG, frame_rate_hz=25.0)
    two = make_prompts(
        encoded.reverse(), utterances.sample(fraction=1, shuffle=True, seed=1), CONFIG, frame_rate_hz=25.0
    )
    assert one.equals(two)


def test_more_prompts_keep_the_fewer_ones():
    encoded, utterances = corpus(40)
    few = make_prompts(encoded, utterances, CONFIG, frame_rate_hz=25.0)
    many = make_prompts(encoded, utterances, CONFIG.model_copy(update={"train": 5}), frame_rate_hz=25.0)
    assert set(few["prompt_id"]) < set(many["prompt_id"])


def test_too_few_usable_utterances_say_what_to_change():
    with pytest.raises(PromptError) as error:
        make_prompts(*corpus(), CONFIG.model_copy(update={"train": 3}), frame_rate_hz=25.0)
    names(error.value, "2", "3", "prompts.train", "prompts.min_units")


def test_an_empty_corpus_is_one_clear_error():
    encoded, utterances = corpus()
    with pytest.raises(PromptError) as raised:
        make_prompts(encoded.clear(), utterances, CONFIG, frame_rate_hz=25.0)
    names(raised.value, "train", "0", "2")


def test_a_cut_that_needs_alignments_names_the_utterance():
    with pytest.raises(PromptError) as raised:
        make_prompts(*corpus(end_s=None), CONFIG, frame_rate_hz=25.0)
    names(raised.value, "prompts.cut_at: time", "sentence", "prompt_end_s")

"""Where a prompt ends: raw at the limit, or with a word, never after the limit; and what its text then is."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm import audio, tables
from alignslm.asr import Transcript
from alignslm.asr.prompts import transcribe_recordings
from alignslm.config.models import Prompts
from alignslm.prompts import CutPoint, PromptError, cut_point, fill_missing_texts, make_prompts
from tests.messages import names
from tests.tiny_librispeech import RATE_HZ, spoken

RAW = Prompts(train=1, valid=1, dev=0, test=1, cut_at="time", max_duration_s=0.5, min_units=2)
WORD = RAW.model_copy(update={"cut_at": "word"})


def corpus(count=6, **columns):
    ids = [f"u{number}" for number in range(count)]
    splits = [("train", "valid", "test")[number % 3] for number in range(count)]
    encoded = pl.DataFrame(
        {"utterance_id": ids, "split": splits, "units": [[1, 2, 3, 4]] * count, "durations": [[5, 5, 5, 5]] * count},
        schema=dict(tables.ENCODED.schema),
    )
    defaults = {
        "text": "one two three four",
        "prompt_text": "not this",
        "continuation_text": "nor this",
        "prompt_end_s": 0.4,
        "word_ends_s": [0.1, 0.45, 0.52, 0.8],
    }
    values = {name: [value] * count for name, value in (defaults | columns).items()}
    kinds = {"word_ends_s": pl.List(pl.Float64), "prompt_end_s": pl.Float64}
    return encoded, pl.DataFrame({"utterance_id": ids, **values}, schema_overrides=kinds)


def row(text, ends):
    return {"utterance_id": "u", "text": text, "word_ends_s": ends, "prompt_end_s": None}


@given(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=12), st.floats(0.1, 4.0))
def test_a_word_cut_never_passes_the_limit_and_could_not_keep_one_word_more(gaps, max_duration_s):  # G7
    ends = [sum(gaps[: at + 1]) for at in range(len(gaps))]
    words = [f"w{at}" for at in range(len(ends))]
    end = cut_point(row(" ".join(words), ends), WORD.model_copy(update={"max_duration_s": max_duration_s}))
    fitting = [at for at, time in enumerate(ends) if time <= max_duration_s]
    if not fitting or len(fitting) == len(words):
        assert end is None
    else:
        assert end.end_s == ends[fitting[-1]] <= max_duration_s
        assert f"{end.prompt_text} {end.continuation_text}".split() == words
        assert len(end.prompt_text.split()) == len(fitting)


def test_a_word_that_ends_at_the_limit_is_kept():
    assert cut_point(row("a b c", [0.1, 0.5, 0.9]), WORD) == CutPoint(0.5, "a b", "c")


def test_a_first_word_longer_than_the_limit_gives_no_prompt_rather_than_a_long_one():
    assert cut_point(row("extraordinary b", [0.6, 0.9]), WORD) is None


def test_raw_prompts_end_at_the_limit_and_know_no_text():
    prompts = make_prompts(*corpus(), RAW, frame_rate_hz=25.0)
    assert prompts.select("end_s", "prompt_text", "continuation_text").unique().rows() == [(0.5, None, None)]
    assert prompts["units"].to_list() == [[1, 2]] * 3  # the run that ends at 0.6 s is not begun


def test_word_prompts_hold_the_words_that_were_spoken_in_them():
    prompts = make_prompts(*corpus(), WORD, frame_rate_hz=25.0)
    assert prompts.select("end_s", "prompt_text", "continuation_text").unique().rows() == [
        (0.45, "one two", "three four")
    ]
    assert prompts["units"].to_list() == [[1, 2]] * 3


def test_a_sentence_longer_than_the_limit_is_cut_inside_and_its_text_is_not_kept():
    config = RAW.model_copy(update={"cut_at": "sentence"})
    longer = make_prompts(*corpus(prompt_end_s=0.6), config, frame_rate_hz=25.0)
    assert longer.select("end_s", "prompt_text").unique().rows() == [(0.5, None)]
    shorter = make_prompts(*corpus(prompt_end_s=0.45), config, frame_rate_hz=25.0)
    assert shorter.select("end_s", "prompt_text").unique().rows() == [(0.45, "not this")]


def test_word_without_word_times_is_one_clear_error():
    with pytest.raises(PromptError) as error:
        make_prompts(*corpus(word_ends_s=None), WORD, frame_rate_hz=25.0)
    names(error.value, "prompts.cut_at: time", "train", "word", "experiments/corpus/", "params.yaml")


def test_utterances_without_word_times_are_passed_over_and_counted():
    encoded, utterances = corpus(6)
    some = utterances.with_columns(
        word_ends_s=pl.when(pl.col("utterance_id") == "u0").then(None).otherwise("word_ends_s")
    )
    prompts = make_prompts(encoded, some, WORD, frame_rate_hz=25.0)
    assert prompts.filter(split="train")["utterance_id"].to_list() == ["u3"]
    with pytest.raises(PromptError) as error:
        make_prompts(encoded, some, WORD.model_copy(update={"train": 2}), frame_rate_hz=25.0)
    names(error.value, "1", "2", "prompts.train", "prompts.min_units")


# --- texts of prompts that were cut raw ---


class Listener:
    """Hears how many samples it was given: what it hears depends on that waveform alone."""

    sample_rate_hz = RATE_HZ

    def transcribe(self, waveforms):
        return [Transcript(f"{len(wave)} samples", "ok", 1.0) for wave in waveforms]


@pytest.mark.parametrize("side", ["prompt", "continuation"])
@pytest.mark.parametrize("shard_size", [1, 2, 100])
def test_recordings_are_transcribed_up_to_the_cut_or_from_it_on(tmp_path, shard_size, side):
    rows = [
        {
            "utterance_id": one.name,
            "split": "train",
            "speaker_id": one.speaker,
            "num_samples": one.num_samples,
            "sample_rate_hz": RATE_HZ,
            "audio": {"bytes": one.flac, "path": None},
        }
        for one in spoken({"dev-clean": 3})
    ]
    utterances = pl.DataFrame(rows, schema=dict(tables.UTTERANCES.schema))
    tables.write_shards([utterances], tables.UTTERANCES, tmp_path / "u", part_rows=2)
    prompts = utterances.select(
        "utterance_id", prompt_id="p-" + pl.col("utterance_id"), end_s=pl.Series([0.5, 1.0, 3.0])
    )
    whole = {"prompts": prompts, "side": side, "shard_size": shard_size}
    heard = transcribe_recordings(tmp_path / "u", Listener(), **whole)
    cuts = {f"p-{row['utterance_id']}": row["num_samples"] for row in rows}
    for name, end_s in prompts.select("prompt_id", "end_s").iter_rows():
        at = min(round(end_s * RATE_HZ), cuts[name])
        cuts[name] = at if side == "prompt" else cuts[name] - at
    assert dict(heard.select("source_id", "text").iter_rows()) == {
        name: f"{samples} samples" for name, samples in cuts.items()
    }
    waveform, _ = audio.decode(rows[0]["audio"]["bytes"])
    assert len(waveform) == rows[0]["num_samples"]
    first, second = tables.parts(tmp_path / "u")
    third = {"prompts": prompts[2:], "side": side, "shard_size": 2}
    by_part = [transcribe_recordings(part, Listener(), **third) for part in (first, second)]
    assert [len(part) for part in by_part] == [0, 1]
    assert by_part[1].equals(heard[2:])


def heard(*rows):
    return pl.DataFrame(rows, schema=dict(tables.TRANSCRIPTS.schema), orient="row")


def test_heard_texts_fill_only_what_is_not_known():
    prompts = pl.DataFrame({"prompt_id": ["a", "b", "c"], "prompt_text": ["told", None, None]})
    width = len(tables.TRANSCRIPTS.schema) - 3
    filled = fill_missing_texts(
        prompts, heard(*((name, text, status, *[None] * width) for name, text, status in [
            ("a", "other", "ok"), ("b", "heard", "ok"), ("c", None, "empty")
        ]))
    )  # fmt: skip
    assert filled.rows() == [("a", "told"), ("b", "heard"), ("c", None)]


def test_a_prompt_that_was_never_transcribed_is_one_clear_error():
    prompts = pl.DataFrame({"prompt_id": ["a", "b"], "prompt_text": ["told", None]})
    with pytest.raises(PromptError) as error:
        fill_missing_texts(prompts, heard())
    names(error.value, "dvc repro prompt_transcripts", "'b'", "1")

"""The spoken corpus: splits that share no prompt, drift in training alone, bytes that no worker count changes."""

from pathlib import Path

import polars as pl
import pytest

from alignslm import audio, tables
from alignslm.config.speech import StoryWorldConfig
from alignslm.storyworld import StoryWorldError
from alignslm.storyworld.corpus import plan_stories, story_texts, synthesize_corpus
from alignslm.storyworld.grammar import can_continue, scene_of, split_of
from alignslm.storyworld.narration import PAUSE_S, synthesize_story
from tests.messages import names


def world(**changes: object) -> StoryWorldConfig:
    values = {
        "kind": "storyworld",
        "seed": 3,
        "stories": {"train": 40, "valid": 3, "dev": 4, "test": 5},
        "mismatched_fraction": 0.5,
        "mismatched_same_pronoun": 0.8,
        "num_texts": 50,
        "voice": "en-us",
        "words_per_minute": 170,
        "sample_rate_hz": 16000,
    }
    return StoryWorldConfig.model_validate({**values, **changes})


MANY = {"train": 3000, "valid": 100, "dev": 100, "test": 100}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[pl.DataFrame]:
    return list(synthesize_corpus(world(), workers=1, shard_size=20, work=tmp_path_factory.mktemp("work")))


def fits(frame: pl.DataFrame) -> pl.Series:
    pairs = frame.select("prompt_text", pl.concat_str("sentence_2", "sentence_3", separator=" ")).rows()
    return pl.Series([can_continue(*pair) for pair in pairs])


def test_splits_have_their_counts_and_share_no_prompt() -> None:
    plan = plan_stories(world(stories=MANY))
    assert dict(plan.group_by("split").len().rows()) == MANY
    assert plan["prompt_text"].n_unique() == len(plan)
    assert all(split_of(text) == split for text, split in plan.select("prompt_text", "split").rows())


def test_only_training_stories_drift_and_by_the_share_asked_for() -> None:
    plan = plan_stories(world(stories=MANY))
    assert fits(plan.filter(~pl.col("drifted"))).all()
    assert plan.filter(pl.col("drifted"))["split"].unique().to_list() == ["train"]
    drifted = plan.filter(pl.col("drifted"))
    assert len(drifted) / MANY["train"] == pytest.approx(0.5, abs=0.03)
    kept = [
        scene_of(prompt).pronoun == second.split()[0]
        for prompt, second in drifted.select("prompt_text", "sentence_2").rows()
    ]
    assert sum(kept) / len(kept) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("drift", "clean"), [(0.0, 1.0), (1.0, 0.06)])
def test_no_drift_is_clean_and_full_drift_fits_by_chance_alone(drift: float, clean: float) -> None:
    """A foreign ending fits with chance .8 (pronoun) x 1/6 (topic) x 1/4 to 1/2 (object): .03 to .07."""
    train = plan_stories(world(stories=MANY, mismatched_fraction=drift)).filter(pl.col("split") == "train")
    assert fits(train).mean() == pytest.approx(clean, abs=0.03)


def test_more_stories_keep_the_earlier_ones_and_another_seed_changes_them() -> None:
    few, many = plan_stories(world()), plan_stories(world(stories=MANY))
    assert many.filter(pl.col("utterance_id").is_in(few["utterance_id"].to_list())).equals(few)
    assert not plan_stories(world(seed=4)).equals(few)


def test_more_prompts_than_the_grammar_has_are_refused() -> None:
    with pytest.raises(StoryWorldError) as error:
        plan_stories(world(stories={**MANY, "dev": 5000}))
    names(error.value, "stories.dev", "5000", "1348", "9%", "experiments/corpus/")


def test_shards_join_into_a_valid_table_of_the_spoken_texts(spoken: list[pl.DataFrame]) -> None:
    assert [len(shard) for shard in spoken] == [20, 20, 12]
    frame = pl.concat(spoken)
    tables.verify(frame, tables.UTTERANCES, where="corpus")
    plan = plan_stories(world())
    for row, story in zip(frame.iter_rows(named=True), plan.iter_rows(named=True), strict=True):
        waveform, rate_hz = audio.decode(row["audio"]["bytes"])
        assert (len(waveform), rate_hz) == (row["num_samples"], row["sample_rate_hz"])
        assert row["audio"]["path"] == f"{row['utterance_id']}.flac"
        assert row["text"] == f"{row['prompt_text']} {row['continuation_text']}"
        assert row["continuation_text"] == f"{story['sentence_2']} {story['sentence_3']}"


def test_the_prompt_ends_in_silence_between_two_sounds(spoken: list[pl.DataFrame]) -> None:
    for row in spoken[0].iter_rows(named=True):
        waveform, rate_hz = audio.decode(row["audio"]["bytes"])
        end, reach = round(row["prompt_end_s"] * rate_hz), int(PAUSE_S * rate_hz / 2)
        assert audio.rms(waveform[end - reach + 1 : end + reach - 1]) == 0
        assert audio.rms(waveform[end - 3 * reach : end - reach]) > 0.003
        assert audio.rms(waveform[end + reach : end + 3 * reach]) > 0.003


def test_workers_and_shards_change_no_byte(spoken: list[pl.DataFrame], tmp_path: Path) -> None:
    other = pl.concat(synthesize_corpus(world(), workers=2, shard_size=52, work=tmp_path))
    assert other.equals(pl.concat(spoken))


def test_an_unknown_voice_stops_before_the_workers_start(tmp_path: Path) -> None:
    with pytest.raises(StoryWorldError, match="voice 'klingon' is unknown"):
        next(synthesize_corpus(world(voice="klingon"), workers=2, shard_size=5, work=tmp_path))


def test_texts_are_clean_and_share_no_prompt_with_held_out_splits() -> None:
    texts = story_texts(world(num_texts=500))
    tables.verify(texts, tables.TEXTS, where="texts")
    assert len(texts) == 500
    assert all(can_continue(*row) for row in texts.select("prompt_text", "continuation_text").rows())
    assert {split_of(text) for text in texts["prompt_text"]} == {"train"}
    assert texts.equals(story_texts(world(num_texts=500, voice="en-gb")))


def test_the_sound_is_that_of_the_text(spoken: list[pl.DataFrame]) -> None:
    row, story = spoken[0].row(0, named=True), plan_stories(world()).row(0, named=True)
    sentences = [story["prompt_text"], story["sentence_2"], story["sentence_3"]]
    waveform, end_s = synthesize_story(sentences, voice="en-us", words_per_minute=170, sample_rate_hz=16000)
    assert audio.encode_flac(waveform, 16000) == row["audio"]["bytes"]
    assert end_s == row["prompt_end_s"]

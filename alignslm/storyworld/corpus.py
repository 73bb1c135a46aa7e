"""The spoken corpus and the clean texts of the story world."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.config.speech import StoryCounts, StoryWorldConfig
from alignslm.lifeline import become_worker
from alignslm.provenance import content_id, row_seed
from alignslm.shards import map_shards
from alignslm.storyworld import StoryWorldError
from alignslm.storyworld.espeak import require_voice
from alignslm.storyworld.grammar import PARTS, Part, Scene, Story, draw_plot, draw_story, realize_story, scenes_in
from alignslm.storyworld.narration import SynthesizedStory, synthesize_stories

SPLITS: tuple[Part, ...] = ("train", "valid", "dev", "test")
_TASK_ROWS = 25  # stories a worker takes at once: small enough that both finish together


STORIES = {
    "utterance_id": pl.String,
    "split": pl.String,
    "drifted": pl.Boolean,
    "prompt_text": pl.String,
    "sentence_2": pl.String,
    "sentence_3": pl.String,
}


_Given = TypeVar("_Given")
_Done = TypeVar("_Done")


class _Map(Protocol):
    def __call__(self, function: Callable[[_Given], _Done], tasks: list[_Given], /) -> Iterator[_Done]: ...


def plan_stories(config: StoryWorldConfig) -> pl.DataFrame:
    """Return every story to be spoken, sorted by utterance_id: split, texts, and whether its ending is foreign.

    A split's prompt sentences are distinct and only in that split. Only training stories have mismatched endings.
    """
    rows = [row for split in SPLITS for row in _plan_split(config, split)]
    return pl.DataFrame(rows, schema=STORIES, orient="row").sort("utterance_id")


def _plan_split(config: StoryWorldConfig, split: Part) -> Iterator[tuple[str, str, bool, str, str, str]]:
    count = _count(config.stories, split)
    for number, scene in enumerate(_distinct_scenes(config.seed, split, count)):
        utterance_id = content_id("story", split, number)
        rng = np.random.default_rng(row_seed(config.seed, "story", utterance_id))
        drifted = split == "train" and rng.random() < config.mismatched_fraction
        source = _mismatched_scene(scene, config.mismatched_same_pronoun, rng) if drifted else scene
        second, third = realize_story(source, draw_plot(source.topic, rng)).continuation
        yield utterance_id, split, drifted, scene.prompt, second, third


def _count(counts: StoryCounts, split: Part) -> int:
    return int(counts.model_dump()[split])


def _distinct_scenes(seed: int, split: Part, count: int) -> list[Scene]:
    """Return the first `count` scenes of a split's shuffled prompts: asking for more keeps the earlier ones."""
    choices = scenes_in(split)
    if count > len(choices):
        raise StoryWorldError(
            f"stories.{split} asks for {count} stories, but the grammar has {len(choices)} distinct {split} prompts "
            f"({PARTS[split]:.0%} of all). Lower stories.{split} in experiments/corpus/."
        )
    order = np.random.default_rng(row_seed(seed, "prompts", split)).permutation(len(choices))
    return [choices[i] for i in order[:count]]


def _mismatched_scene(scene: Scene, same_pronoun: float, rng: np.random.Generator) -> Scene:
    """Draw the training scene that provides a mismatched ending: any topic and object, a given pronoun or any."""
    keep = rng.random() < same_pronoun
    while True:
        other = draw_story(rng, part="train").scene
        if (other.pronoun == scene.pronoun) == keep and other.prompt != scene.prompt:
            return other


def story_texts(config: StoryWorldConfig) -> pl.DataFrame:
    """Return the TEXTS table: `config.num_texts` clean stories with prompts of the train part."""
    rows = [_text_row(config.seed, content_id("text", number)) for number in range(config.num_texts)]
    schema = ["text_id", "prompt_text", "continuation_text"]
    return tables.conform(pl.DataFrame(rows, schema=schema, orient="row"), tables.TEXTS)


def _text_row(seed: int, text_id: str) -> tuple[str, str, str]:
    story: Story = draw_story(np.random.default_rng(row_seed(seed, "text", text_id)), part="train")
    return text_id, story.prompt, story.continuation_text


def synthesize_corpus(config: StoryWorldConfig, *, workers: int, shard_size: int, work: Path) -> Iterator[pl.DataFrame]:
    """Yield the UTTERANCES table in shards, in order of utterance_id, each durable in `work` once spoken.

    With several workers the calling script must be importable (`if __name__ == "__main__"`), because they are spawned.
    """
    with processes(workers) as pool:
        yield from map_shards(
            plan_stories(config),
            lambda rows: _speak(rows, config, pool),
            folder=work,
            shard_size=shard_size,
            label="corpus",
        )


@contextmanager
def processes(workers: int) -> Iterator[_Map]:
    """Yield a `map` over processes; spawned, because polars' threads do not survive a fork."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), become_worker) as executor:
        yield executor.map


def _speak(stories: pl.DataFrame, config: StoryWorldConfig, pool: _Map) -> pl.DataFrame:
    require_voice(config.voice)
    texts = stories.select("prompt_text", "sentence_2", "sentence_3").rows()
    tasks = [texts[start : start + _TASK_ROWS] for start in range(0, len(texts), _TASK_ROWS)]
    work = partial(
        synthesize_stories,
        voice=config.voice,
        words_per_minute=config.words_per_minute,
        sample_rate_hz=config.sample_rate_hz,
    )
    narrated = list(chain.from_iterable(pool(work, tasks)))
    return _utterances(stories, narrated, config)


def _utterances(stories: pl.DataFrame, narrated: list[SynthesizedStory], config: StoryWorldConfig) -> pl.DataFrame:
    ids = stories["utterance_id"].to_list()
    audio = [{"bytes": clip.flac, "path": f"{name}.flac"} for name, clip in zip(ids, narrated, strict=True)]
    continuation = pl.concat_str("sentence_2", "sentence_3", separator=" ")
    frame = stories.with_columns(
        continuation.alias("continuation_text"),
        pl.concat_str(pl.col("prompt_text"), continuation, separator=" ").alias("text"),
        pl.lit(config.voice).alias("speaker_id"),
        pl.lit(config.sample_rate_hz).alias("sample_rate_hz"),
        pl.lit(None, pl.List(pl.Float64)).alias("word_ends_s"),
        pl.Series("prompt_end_s", [clip.prompt_end_s for clip in narrated], pl.Float64),
        pl.Series("num_samples", [clip.num_samples for clip in narrated], pl.Int64),
        pl.Series("audio", audio, tables.AUDIO),
    )
    return tables.conform(frame, tables.UTTERANCES)

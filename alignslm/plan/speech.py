"""Whether a corpus of recordings has the speech and the texts that each stage needs, before any stage has run."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import soundfile

from alignslm.config.corpora import SPLITS, Recordings
from alignslm.config.crosschecks import SPECIAL_TOKENS
from alignslm.config.evaluation import CorpusClozeConfig
from alignslm.config.experiment import Experiment
from alignslm.config.feedback import NgramJudgeConfig, StoryLMJudgeConfig
from alignslm.config.models import LlamaScratchConfig
from alignslm.config.prerequisites import folder_faults
from alignslm.config.sources import FolderSource
from alignslm.config.speech import CharCTCASRConfig
from alignslm.corpora import find_corpus
from alignslm.corpora.texts import texts_of
from alignslm.judge.calibration import MIN_HELD_BACK

MEASURED_FILES = 2000  # headers that are read, spread over the corpus: a second or two


class Need(NamedTuple):
    """What a stage needs from the corpus, what there is, and whether it is enough."""

    stage: str
    needs: str
    has: str
    enough: bool


def speech_needs(experiment: Experiment, root: Path) -> list[Need]:
    """Return the needs of every stage that reads the corpus; none if it is synthesized, in parquet, or missing.

    Raises CorpusError if the corpus cannot be listed.
    """
    config = experiment.corpus
    if not isinstance(config, Recordings) or folder_faults(experiment, root):
        return []
    if any(part.kind == "parquet" or not isinstance(part.source, FolderSource) for part in config.parts.values()):
        return []
    corpus = find_corpus(config)
    step = math.ceil(len(corpus.rows) / MEASURED_FILES)
    files = corpus.rows.gather_every(step).select("part", "file").iter_rows()
    seconds = [_seconds(corpus.roots[part] / file) for part, file in files]
    rows = corpus.rows.gather_every(step).with_columns(seconds=pl.Series(seconds, dtype=pl.Float64))
    return [*_prompts(experiment, rows, step), *_texts(experiment, corpus.rows, config), *_lengths(experiment, rows)]


def _seconds(file: Path) -> float | None:
    """Return the length that a file's header gives; what cannot be read is for the stage to tell."""
    try:
        found = soundfile.info(file)
    except soundfile.LibsndfileError:
        return None
    return float(found.frames / found.samplerate)


def _prompts(experiment: Experiment, rows: pl.DataFrame, step: int) -> Iterator[Need]:
    prompts = experiment.params.prompts
    about = "" if step == 1 else "about "
    for split in SPLITS:
        wanted: int = getattr(prompts, split)
        in_split = rows.filter(split=split)
        longer = in_split.filter(pl.col("seconds") > (prompts.max_duration_s if prompts.cut_at == "time" else 0))
        minutes = (in_split["seconds"].sum() or 0) * step / 60
        if wanted:
            needs = f"{wanted} {split} utterances longer than {prompts.max_duration_s:g} s"
            has = f"{about}{len(longer) * step} of {len(in_split) * step}, {minutes:.1f} minutes"
            yield Need("prompts", needs, has, len(longer) * step >= wanted)


def _texts(experiment: Experiment, rows: pl.DataFrame, config: Recordings) -> Iterator[Need]:
    texts = len(texts_of(rows, config).unique(["prompt_text", "continuation_text"]))
    for name, judge in (("judge", experiment.judge), ("heldout_judge", experiment.heldout_judge)):
        if isinstance(judge, NgramJudgeConfig | StoryLMJudgeConfig):
            needs = f"{2 * MIN_HELD_BACK} different training texts of more than {config.num_prompt_words} words"
            yield Need(name, needs, str(texts), texts >= 2 * MIN_HELD_BACK)
    if isinstance(experiment.asr, CharCTCASRConfig):
        with_text = len(rows.filter(split="train")["text"].drop_nulls())
        yield Need("asr", "training utterances with a text", str(with_text), with_text > 0)


def _lengths(experiment: Experiment, rows: pl.DataFrame) -> Iterator[Need]:
    if isinstance(experiment.lm, LlamaScratchConfig):
        positions = experiment.lm.max_position_embeddings - SPECIAL_TOKENS
        most_s = positions / experiment.encoder.frame_rate_hz
        longest = rows.filter(split="train")["seconds"].max()
        if isinstance(longest, float):
            has = f"the longest has {longest:.1f} s"
            yield Need("base", f"training utterances of at most {most_s:.1f} s", has, longest <= most_s)
    for name, config in experiment.benchmarks.items():
        if isinstance(config, CorpusClozeConfig):
            long = rows.filter(
                (pl.col("split") == config.split) & (pl.col("seconds") >= config.context_s + config.ending_s)
            )
            pools = long["speaker_id"].value_counts()["count"] if config.same_speaker else pl.Series([len(long)])
            fitting = int(pools.filter(pools > 1).sum())
            speaker = " by one speaker" if config.same_speaker else ""
            needs = f"2 {config.split} utterances{speaker} of {config.context_s + config.ending_s:g} s"
            yield Need(f"benchmarks.{name}", needs, str(fitting), fitting > 1)

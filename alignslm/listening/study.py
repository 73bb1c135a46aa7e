"""Build a blinded study from the samples of an experiment, and read it back."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.browser_audio import FLAC_FRAME
from alignslm.config.listening import ORIGINAL, ListeningTestConfig
from alignslm.config.model import Config
from alignslm.listening.design import Trial, trials
from alignslm.listening.loudness import common_loudness, normalised
from alignslm.provenance import content_id
from alignslm.recordings import listening_sort_key, recordings_of
from alignslm.storage import replacing_folder
from alignslm.utterances import decode_at


class StudyError(ValueError):
    """A study cannot be built from what there is, or a folder holds none."""


class Study(Config):
    """study.json: the choice and what was made of it. `lufs` is the loudness that all parts could be given."""

    choice: ListeningTestConfig
    prompts: tuple[str, ...]
    lufs: float

    def trials(self, number: int) -> list[Trial]:
        """Return what rater `number` hears, in order."""
        choice = self.choice
        return trials(number, self.prompts, choice.names, passes=choice.passes, seed=choice.seed)


def clip_path(folder: Path, clip_id: str) -> Path:
    """Return where a clip's sound lies."""
    return folder / "audio" / f"{clip_id}.flac"


def read_study(folder: Path) -> tuple[Study, pl.DataFrame]:
    """Return a study and its CLIPS. StudyError where the folder holds none."""
    path = folder / "study.json"
    if not path.exists():
        raise StudyError(f"{folder} holds no study (study.json is missing). Make one with `alignslm listen build`.")
    study = Study.model_validate_json(path.read_text(encoding="utf-8"))
    return study, tables.read(tables.CLIPS, folder / "clips.parquet")


def build_study(config: ListeningTestConfig, artifacts: Path, folder: Path) -> Study:
    """Choose prompts, join each with every system's continuation, and write the study into `folder`, which must be new.

    Equal choices and samples give equal bytes. StudyError names a system without samples, or too few shared prompts.
    """
    if folder.exists():
        raise StudyError(f"{folder} exists. A study that is under way must not change: name another folder.")
    drawn = {name: _first_draws(artifacts, name) for name in config.names if name != ORIGINAL}
    chosen = _shared_prompts(config, drawn)
    heads, tails = _recorded(artifacts, chosen, config.sample_rate_hz)
    parts = {(ORIGINAL, prompt): tails[prompt] for prompt in chosen} if config.original else {}
    for name, ids in drawn.items():
        parts |= {(name, prompt): wave for prompt, wave in _spoken(artifacts, name, ids, chosen, config.sample_rate_hz)}
    every = [*heads.values(), *parts.values()]
    lufs = common_loudness(every, config.sample_rate_hz, wanted_lufs=config.loudness_lufs)
    study = Study(choice=config, prompts=tuple(chosen), lufs=lufs)
    with replacing_folder(folder) as partial:  # a study is there whole, or not at all
        _write(study, heads, parts, {name: dict(ids.iter_rows()) for name, ids in drawn.items()}, partial)
    return study


def _first_draws(artifacts: Path, system: str) -> pl.DataFrame:
    """Return (prompt_id, continuation_id) of a system's first draw of every prompt."""
    path = artifacts / "samples" / system / "continuations.parquet"
    if not path.exists():
        known = sorted(found.parent.name for found in (artifacts / "samples").glob("*/continuations.parquet"))
        there = f"there are {', '.join(known)}" if known else "there are none yet"
        raise StudyError(f"{path.parent} holds no samples of {system!r}; {there}. Make them with `dvc repro`.")
    frame = tables.read(tables.CONTINUATIONS, path, ["continuation_id", "prompt_id", "draw"])
    return frame.filter(draw=0).select("prompt_id", "continuation_id")


def _shared_prompts(config: ListeningTestConfig, drawn: Mapping[str, pl.DataFrame]) -> list[str]:
    shared = set.intersection(*(set(frame["prompt_id"]) for frame in drawn.values()))
    if len(shared) < config.prompts:
        counts = ", ".join(f"{name} {len(frame)}" for name, frame in drawn.items())
        raise StudyError(
            f"{config.prompts} prompts are wanted, but only {len(shared)} were continued by all systems ({counts}). "
            "Lower `prompts` of the study, or sample the same prompts with every system."
        )
    return sorted(shared, key=listening_sort_key)[: config.prompts]


def _recorded(artifacts: Path, chosen: list[str], rate_hz: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    prompts = tables.read(tables.PROMPTS, artifacts / "prompts.parquet").filter(pl.col("prompt_id").is_in(chosen))
    heads, tails = {}, {}
    for cut in recordings_of(artifacts / "corpus" / "utterances", prompts):
        heads[cut.prompt_id] = audio.resample(cut.prompt, from_hz=cut.sample_rate_hz, to_hz=rate_hz)
        tails[cut.prompt_id] = audio.resample(cut.continuation, from_hz=cut.sample_rate_hz, to_hz=rate_hz)
    return heads, tails


def _spoken(
    artifacts: Path, system: str, ids: pl.DataFrame, chosen: list[str], rate_hz: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (prompt_id, waveform); a continuation without sound is silence, and is rated as such."""
    wanted = ids.filter(pl.col("prompt_id").is_in(chosen))
    for shard in tables.iterate(tables.SPEECH, artifacts / "samples" / system / "speech", ["continuation_id", "audio"]):
        for prompt_id, _, record in wanted.join(shard, on="continuation_id").iter_rows():
            yield prompt_id, decode_at(record, rate_hz)


def _write(
    study: Study,
    heads: Mapping[str, np.ndarray],
    parts: Mapping[tuple[str, str], np.ndarray],
    ids: Mapping[str, Mapping[str, str]],
    partial: Path,
) -> None:
    (partial / "audio").mkdir()
    choice = study.choice
    pause = np.zeros(round(choice.pause_s * choice.sample_rate_hz), np.float32)
    rows = []
    for (system, prompt), tail in parts.items():
        head = normalised(heads[prompt], choice.sample_rate_hz, lufs=study.lufs)
        sound = np.concatenate([head, pause, normalised(tail, choice.sample_rate_hz, lufs=study.lufs)])
        continuation = prompt if system == ORIGINAL else ids[system][prompt]
        clip_id = content_id("clip", choice.seed, system, prompt, continuation)
        short = max(0, FLAC_FRAME + 1 - len(sound))  # all clips are FLAC, so one too short for it ends in silence
        sound = np.pad(sound, (0, short))
        clip_path(partial, clip_id).write_bytes(audio.encode_flac(sound, choice.sample_rate_hz))
        boundary_s = (len(head) + len(pause)) / choice.sample_rate_hz
        rows.append((clip_id, prompt, system, continuation, boundary_s, len(sound) / choice.sample_rate_hz))
    frame = pl.DataFrame(rows, schema=dict(tables.CLIPS.schema), orient="row")
    tables.write(frame, tables.CLIPS, partial / "clips.parquet")
    (partial / "study.json").write_text(study.model_dump_json(indent=2) + "\n", encoding="utf-8")

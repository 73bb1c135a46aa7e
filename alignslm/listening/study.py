"""Build a blinded study from an experiment's samples, and read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from alignslm import audio, tables
from alignslm.artifacts import Artifacts
from alignslm.browser_audio import FLAC_FRAME
from alignslm.config.listening import ORIGINAL, ListeningTestConfig
from alignslm.config.model import Config
from alignslm.listening.design import Trial, trials
from alignslm.listening.loudness import common_loudness, normalised
from alignslm.provenance import content_id
from alignslm.recordings import listening_sort_key, recordings_of
from alignslm.storage import replacing_folder
from alignslm.utterances import decode_at, speech_cells


class StudyError(ValueError):
    """A study cannot be built, or a folder has none."""


class Study(Config):
    """study.json: the config, its prompts, and `lufs`, the common loudness of all parts."""

    choice: ListeningTestConfig
    prompts: tuple[str, ...]
    lufs: float

    def trials(self, number: int) -> list[Trial]:
        """Return the trials of rater `number` in order."""
        choice = self.choice
        return trials(number, self.prompts, choice.names, passes=choice.trials_per_prompt, seed=choice.seed)


def clip_path(folder: Path, clip_id: str) -> Path:
    """Return the path of a clip."""
    return folder / "audio" / f"{clip_id}.flac"


def read_study(folder: Path) -> tuple[Study, pl.DataFrame]:
    """Return a study and its CLIPS. StudyError if the folder has none, or study.json is something else."""
    path = folder / "study.json"
    if not path.exists():
        raise StudyError(f"{folder} is not a study: study.json is missing. Run `alignslm listen build`.")
    try:
        study = Study.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise StudyError(
            f"{path} is not a study of this version ({'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}). "
            "Put the study's own study.json back, or build a new study with `alignslm listen build`."
        ) from error
    return study, tables.read(tables.CLIPS, folder / "clips.parquet")


def build_study(config: ListeningTestConfig, artifacts: Path, folder: Path) -> Study:
    """Choose prompts, join each with every system's continuation, and write the study to `folder`, which must be new.

    Equal configs and samples give equal bytes. StudyError for a system without samples, or too few shared prompts.
    """
    if folder.exists():
        raise StudyError(f"{folder} already exists. A running study cannot be changed; choose another folder.")
    drawn = {name: _first_draws(artifacts, name) for name in config.names if name != ORIGINAL}
    chosen = _shared_prompts(config, drawn)
    heads, tails = _recorded(artifacts, chosen, config.sample_rate_hz)
    parts = {(ORIGINAL, prompt): tails[prompt] for prompt in chosen} if config.original else {}
    for name, ids in drawn.items():
        parts |= {(name, prompt): wave for prompt, wave in _spoken(artifacts, name, ids, chosen, config.sample_rate_hz)}
    every = [*heads.values(), *parts.values()]
    lufs = common_loudness(every, config.sample_rate_hz, wanted_lufs=config.loudness_lufs)
    study = Study(choice=config, prompts=tuple(chosen), lufs=lufs)
    with replacing_folder(folder) as partial:  # a study is complete or absent
        _write(study, heads, parts, {name: dict(ids.iter_rows()) for name, ids in drawn.items()}, partial)
    return study


def _first_draws(artifacts: Path, system: str) -> pl.DataFrame:
    """Return (prompt_id, continuation_id) of a system's first continuation of every prompt."""
    path = Artifacts(artifacts).sample(system).continuations
    if not path.exists():
        known = sorted(found.parent.name for found in Artifacts(artifacts).samples.glob("*/continuations.parquet"))
        if not known:
            raise StudyError(f"{path.parent.parent} has no samples yet. Run `dvc repro`.")
        raise StudyError(
            f"{path.parent} does not exist: there are samples of {', '.join(known)}, not of {system!r}. Remove it from "
            "the study's config in experiments/listening, or add it to `systems` in params.yaml and run `dvc repro`."
        )
    frame = tables.read(tables.CONTINUATIONS, path, ["continuation_id", "prompt_id", "sample_index"])
    return frame.filter(sample_index=0).select("prompt_id", "continuation_id")


def _shared_prompts(config: ListeningTestConfig, drawn: Mapping[str, pl.DataFrame]) -> list[str]:
    shared = set.intersection(*(set(frame["prompt_id"]) for frame in drawn.values()))
    if len(shared) < config.prompts:
        counts = ", ".join(f"{name} {len(frame)}" for name, frame in drawn.items())
        raise StudyError(
            f"{config.prompts} prompts are wanted, but all systems have continued only {len(shared)} ({counts}). "
            "Lower `prompts` in the study's config, or sample the same prompts with every system."
        )
    return sorted(shared, key=listening_sort_key)[: config.prompts]


def _recorded(artifacts: Path, chosen: list[str], rate_hz: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    prompts = tables.read(tables.PROMPTS, Artifacts(artifacts).prompts).filter(pl.col("prompt_id").is_in(chosen))
    heads, tails = {}, {}
    for cut in recordings_of(Artifacts(artifacts).utterances, prompts):
        heads[cut.prompt_id] = audio.resample(cut.prompt, from_hz=cut.sample_rate_hz, to_hz=rate_hz)
        tails[cut.prompt_id] = audio.resample(cut.continuation, from_hz=cut.sample_rate_hz, to_hz=rate_hz)
    return heads, tails


def _spoken(
    artifacts: Path, system: str, ids: pl.DataFrame, chosen: list[str], rate_hz: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (prompt_id, waveform); a continuation without audio is silence, and is rated as such."""
    wanted = ids.filter(pl.col("prompt_id").is_in(chosen))
    cells = speech_cells(Artifacts(artifacts).sample(system).speech, wanted["continuation_id"])
    for prompt_id, _, record in wanted.join(cells, on="continuation_id", maintain_order="left").iter_rows():
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
        clip = np.concatenate([head, pause, normalised(tail, choice.sample_rate_hz, lufs=study.lufs)])
        continuation = prompt if system == ORIGINAL else ids[system][prompt]
        clip_id = content_id("clip", choice.seed, system, prompt, continuation)
        short = max(0, FLAC_FRAME + 1 - len(clip))  # browsers cannot rewind a shorter FLAC: pad with silence
        clip = np.pad(clip, (0, short))
        clip_path(partial, clip_id).write_bytes(audio.encode_flac(clip, choice.sample_rate_hz))
        boundary_s = (len(head) + len(pause)) / choice.sample_rate_hz
        rows.append((clip_id, prompt, system, continuation, boundary_s, len(clip) / choice.sample_rate_hz))
    frame = pl.DataFrame(rows, schema=dict(tables.CLIPS.schema), orient="row")
    tables.write(frame, tables.CLIPS, partial / "clips.parquet")
    (partial / "study.json").write_text(study.model_dump_json(indent=2) + "\n", encoding="utf-8")

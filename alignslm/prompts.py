"""From utterances to units, and from units to prompts (paper, section 3: about three seconds of speech)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.config.models import Prompts
from alignslm.encoder import Encoder
from alignslm.provenance import content_id
from alignslm.units import deduplicate, expand


class PromptError(ValueError):
    """A split cannot supply the prompts asked of it."""


def decode_at(record: dict[str, bytes], sample_rate_hz: int) -> np.ndarray:
    """Decode an audio cell ({bytes, path}) and resample it to the rate a model wants. No bytes: no samples."""
    if not record["bytes"]:
        return np.zeros(0, np.float32)
    waveform, found_hz = audio.decode(record["bytes"])
    return audio.resample(waveform, from_hz=found_hz, to_hz=sample_rate_hz)


def waveforms_of(path: Path, utterance_ids: set[str], sample_rate_hz: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance_id, waveform) of the wanted utterances, reading one shard of audio at a time."""
    for frame in tables.iterate(tables.UTTERANCES, path, ["utterance_id", "audio"]):
        for utterance_id, record in frame.filter(pl.col("utterance_id").is_in(list(utterance_ids))).iter_rows():
            yield utterance_id, decode_at(record, sample_rate_hz)


def pick(utterances: pl.DataFrame, split: str, count: int, purpose: str) -> list[str]:
    """Choose `count` utterance ids of a split by hash, so a larger count keeps the smaller one's choice."""
    ids = utterances.filter(pl.col("split") == split)["utterance_id"].to_list()
    return sorted(ids, key=lambda name: content_id(purpose, name))[:count]


def encode_utterances(utterances: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Turn rows of the utterances table into rows of the units table."""
    waveforms = [decode_at(record, encoder.contract.sample_rate_hz) for record in utterances["audio"]]
    encoded = encoder.encode(waveforms)
    return utterances.select(
        "utterance_id",
        "split",
        pl.Series("units", [item.units.tolist() for item in encoded], tables.UNITS),
        pl.Series("durations", [item.durations.tolist() for item in encoded], tables.UNITS),
    )


def cut(units: list[int], durations: list[int], *, end_s: float, frame_rate_hz: float) -> tuple[list[int], list[int]]:
    """Cut deduplicated units at a time: the prompt's units, then the rest.

    The cut falls on a run boundary, at or before `end_s`: a run cut in two would repeat its unit across the cut,
    and the language model has never seen a repeat.
    """
    ends = np.cumsum(durations)
    keep = int(np.searchsorted(ends, end_s * frame_rate_hz + 1e-6, side="right"))
    return units[:keep], units[keep:]


def cut_at_frame(units: list[int], durations: list[int], frame: int) -> tuple[list[int], list[int]]:
    """Cut at a frame number and deduplicate both sides afresh; a unit may then stand on both sides."""
    frames = expand(units, durations)
    return deduplicate(frames[:frame])[0].tolist(), deduplicate(frames[frame:])[0].tolist()


def _end_s(row: dict[str, float | None], config: Prompts) -> float:
    if config.cut == "raw":
        return config.max_s
    if row["prompt_end_s"] is None:
        raise PromptError(
            f"utterance {row['utterance_id']!r} has no prompt_end_s, so it cannot be cut by {config.cut!r}. "
            "Set prompts.cut: raw in params.yaml, or give the corpus alignments."
        )
    return min(row["prompt_end_s"], config.max_s)


def make_prompts(encoded: pl.DataFrame, utterances: pl.DataFrame, config: Prompts, *, frame_rate_hz: float) -> pl.DataFrame:
    """Cut every split's first utterances (by hash) into prompt and true continuation: rows of the prompts table.

    Raises PromptError where a split has too few utterances whose prompt holds `min_units` and is followed by speech.
    """
    joined = encoded.join(utterances, on="utterance_id", validate="1:1")
    made = []
    for split, wanted in {s: getattr(config, s) for s in ("train", "valid", "dev", "test")}.items():
        rows = joined.filter(pl.col("split") == split).to_dicts()
        usable = []
        for row in sorted(rows, key=lambda row: content_id("prompt", row["utterance_id"])):
            end_s = _end_s(row, config)
            head, tail = cut(row["units"], row["durations"], end_s=end_s, frame_rate_hz=frame_rate_hz)
            if len(head) >= config.min_units and tail:
                usable.append(_prompt_row(row, head, tail, end_s))
            if len(usable) == wanted:
                break
        if len(usable) < wanted:
            raise PromptError(
                f"split {split!r} gives {len(usable)} prompts of at least {config.min_units} units from {len(rows)} "
                f"utterances, {wanted} were asked for. Lower prompts.{split} or prompts.min_units, or enlarge the corpus."
            )
        made += usable
    return tables.arrange(pl.DataFrame(made, schema=dict(tables.PROMPTS.schema)), tables.PROMPTS)


def _prompt_row(row: dict[str, object], head: list[int], tail: list[int], end_s: float) -> dict[str, object]:
    return {
        "prompt_id": content_id("prompt", row["utterance_id"], end_s),
        "utterance_id": row["utterance_id"],
        "split": row["split"],
        "end_s": end_s,
        "num_units": len(head),
        "units": head,
        "continuation_units": tail,
        "prompt_text": row["prompt_text"],
        "continuation_text": row["continuation_text"],
    }

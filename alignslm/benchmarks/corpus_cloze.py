"""True against foreign endings of the corpus's own speech: StoryCloze's question without a text."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, NamedTuple

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.items import SpokenItem, encode_items, item_id
from alignslm.config.evaluation import CorpusClozeConfig
from alignslm.encoder import Encoder
from alignslm.provenance import content_id, row_seed
from alignslm.storage import reraise_disk_errors
from alignslm.utterances import iter_waveforms

FADE_S = 0.005
_ITEMS_AT_ONCE = 512  # waveforms of so many are in memory


def plan_endings(config: CorpusClozeConfig, utterances: pl.DataFrame) -> pl.DataFrame:
    """Choose contexts and their foreign endings: utterance_id, foreign, speaker_id, sorted by utterance_id.

    `utterances` has utterance_id, split, speaker_id and duration_s. Contexts are chosen by hash, so that more pairs
    include those of fewer; a mismatched ending is drawn from all fitting utterances of the split. Raises
    BenchmarkError if no utterance has another one to go with.
    """
    needed_s = config.context_s + config.ending_s
    fitting = utterances.filter(split=config.split).filter(pl.col("duration_s") >= needed_s).sort("utterance_id")
    rows = []
    for pool in fitting.partition_by("speaker_id") if config.same_speaker else [fitting]:
        ids = pool["utterance_id"].to_list()
        speakers = pool["speaker_id"] if len(ids) > 1 else ()
        rows += [(ids[at], _pick_distractor(ids, at, config.seed), str(speaker)) for at, speaker in enumerate(speakers)]
    if not rows:
        raise BenchmarkError(
            f"{len(fitting)} utterances of the {config.split} split last {needed_s:g} s, and none has another one "
            f"{'of its speaker ' if config.same_speaker else ''}to borrow an ending from; lower context_s or ending_s"
            f"{', or set same_speaker: false' if config.same_speaker else ''}"
        )
    chosen = sorted(rows, key=lambda row: content_id("own-endings", config.seed, row[0]))[: config.pairs]
    return pl.DataFrame(sorted(chosen), schema=["utterance_id", "foreign", "speaker_id"], orient="row")


def _pick_distractor(ids: list[str], own: int, seed: int) -> str:
    """Draw one of `ids` that is not ids[own]."""
    drawn = int(np.random.default_rng(row_seed(seed, "own-endings", ids[own])).integers(len(ids) - 1))
    return ids[drawn + (drawn >= own)]


def join(context: np.ndarray, ending: np.ndarray, *, sample_rate_hz: int) -> np.ndarray:
    """Join two waveforms (samples,), both faded over 5 ms: a true ending sounds as cut as a foreign one."""
    fade = np.linspace(1, 0, round(FADE_S * sample_rate_hz), dtype=np.float32)
    context, ending = context.copy(), ending.copy()
    context[-len(fade) :] *= fade
    ending[: len(fade)] *= fade[::-1]
    return np.concatenate([context, ending])


def corpus_cloze_items(config: CorpusClozeConfig, path: Path, encoder: Encoder) -> Iterator[pl.DataFrame]:
    """Yield rows of the items table in the order of its key, some at a time, from the utterances table at `path`.

    Audio is read once, file by file; what items need of it waits in a temporary file, not in memory.
    """
    columns = ["utterance_id", "split", "speaker_id", "num_samples", "sample_rate_hz"]
    utterances = tables.read(tables.UTTERANCES, path, columns)
    plan = plan_endings(config, utterances.with_columns(duration_s=pl.col("num_samples") / pl.col("sample_rate_hz")))
    rate_hz = encoder.contract.sample_rate_hz
    with TemporaryFile() as file:
        heard = _AudioStore(config, file, rate_hz)
        for name, waveform in iter_waveforms(path, {*plan["utterance_id"], *plan["foreign"]}, rate_hz):
            heard.keep(name, waveform)
        sides = iter(_sides(plan))
        while some := list(islice(sides, _ITEMS_AT_ONCE)):
            yield encode_items([heard.item(side) for side in some], encoder, sample_rate_hz=rate_hz)


class _Side(NamedTuple):
    """The utterances that one side of a pair takes its beginning and its ending from."""

    pair_id: str
    polarity: str
    own: str
    ending: str
    speaker: str


def _sides(plan: pl.DataFrame) -> list[_Side]:
    sides = [
        _Side(content_id("own-endings", own), polarity, own, ending, speaker)
        for own, foreign, speaker in plan.iter_rows()
        for polarity, ending in (("positive", own), ("negative", foreign))
    ]
    return sorted(sides, key=lambda side: item_id(side.pair_id, side.polarity))


class _AudioStore:
    """Contexts and endings of utterances, in a file."""

    def __init__(self, config: CorpusClozeConfig, file: IO[bytes], rate_hz: int) -> None:
        self._config, self._file, self._rate_hz = config, file, rate_hz
        self._cut = round(config.context_s * rate_hz)
        self._end = round((config.context_s + config.ending_s) * rate_hz)
        self._places: dict[str, tuple[int, int]] = {}

    def keep(self, name: str, waveform: np.ndarray) -> None:
        """Keep the parts of an utterance that items can use."""
        kept = waveform[: self._end].astype(np.float32, copy=False)
        self._places[name] = self._file.tell(), kept.nbytes
        with reraise_disk_errors(Path(gettempdir()) / "endings"):
            self._file.write(kept.tobytes())

    def item(self, side: _Side) -> SpokenItem:
        """Return the audio of one side of a pair."""
        context, ending = self._read(side.own)[: self._cut], self._read(side.ending)[self._cut :]
        waveform = join(context, ending, sample_rate_hz=self._rate_hz)
        return SpokenItem(side.pair_id, side.polarity, "ending", side.speaker, None, waveform, self._config.context_s)

    def _read(self, name: str) -> np.ndarray:
        start, size = self._places[name]
        self._file.seek(start)
        return np.frombuffer(self._file.read(size), np.float32)

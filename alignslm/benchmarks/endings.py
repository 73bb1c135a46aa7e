"""True against foreign endings of the corpus's own speech: StoryCloze's question without a text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.benchmarks.items import ItemError, SpokenItem, encode_items
from alignslm.config.evaluation import OwnEndings
from alignslm.encoder import Encoder
from alignslm.provenance import content_id, row_seed
from alignslm.utterances import waveforms_of

FADE_S = 0.005
_PAIRS_AT_ONCE = 256  # waveforms of so many are in memory


def plan_endings(config: OwnEndings, utterances: pl.DataFrame) -> pl.DataFrame:
    """Choose contexts and their foreign endings: utterance_id, foreign, speaker_id, sorted by utterance_id.

    `utterances` has utterance_id, split, speaker_id and duration_s. Contexts are chosen by hash, so that more pairs
    keep the fewer ones' choice; a foreign ending is drawn from all fitting utterances of the split. ItemError where
    no utterance has another one to go with.
    """
    needed_s = config.context_s + config.ending_s
    fitting = utterances.filter(split=config.split).filter(pl.col("duration_s") >= needed_s).sort("utterance_id")
    rows = []
    for (speaker,), of_speaker in fitting.partition_by("speaker_id", as_dict=True).items():
        others = of_speaker if config.same_speaker else fitting
        ids = others["utterance_id"].to_list()
        rows += [
            (own, _foreign(own, ids, config.seed), str(speaker)) for own in of_speaker["utterance_id"] if len(ids) > 1
        ]
    if not rows:
        raise ItemError(
            f"{len(fitting)} utterances of the {config.split} split last {needed_s:g} s, and none has another one "
            f"{'of its speaker ' if config.same_speaker else ''}to borrow an ending from; lower context_s or ending_s"
            f"{', or set same_speaker: false' if config.same_speaker else ''}"
        )
    chosen = sorted(rows, key=lambda row: content_id("own-endings", config.seed, row[0]))[: config.pairs]
    return pl.DataFrame(sorted(chosen), schema=["utterance_id", "foreign", "speaker_id"], orient="row")


def _foreign(own: str, ids: list[str], seed: int) -> str:
    others = [other for other in ids if other != own]
    return others[int(np.random.default_rng(row_seed(seed, "own-endings", own)).integers(len(others)))]


def join(context: np.ndarray, ending: np.ndarray, *, sample_rate_hz: int) -> np.ndarray:
    """Join two waveforms (samples,), both faded over 5 ms: a true ending sounds as cut as a foreign one."""
    fade = np.linspace(1, 0, round(FADE_S * sample_rate_hz), dtype=np.float32)
    context, ending = context.copy(), ending.copy()
    context[-len(fade) :] *= fade
    ending[: len(fade)] *= fade[::-1]
    return np.concatenate([context, ending])


def own_endings(config: OwnEndings, path: Path, encoder: Encoder) -> Iterator[pl.DataFrame]:
    """Yield rows of the items table, some pairs at a time, from the utterances table at `path`."""
    columns = ["utterance_id", "split", "speaker_id", "num_samples", "sample_rate_hz"]
    utterances = tables.read(tables.UTTERANCES, path, columns)
    plan = plan_endings(config, utterances.with_columns(duration_s=pl.col("num_samples") / pl.col("sample_rate_hz")))
    for block in plan.iter_slices(_PAIRS_AT_ONCE):
        spoken = list(_spoken(config, block, path, encoder.contract.sample_rate_hz))
        yield encode_items(spoken, encoder, sample_rate_hz=encoder.contract.sample_rate_hz)


def _spoken(config: OwnEndings, plan: pl.DataFrame, path: Path, rate_hz: int) -> Iterator[SpokenItem]:
    cut, end = round(config.context_s * rate_hz), round((config.context_s + config.ending_s) * rate_hz)
    wanted = {*plan["utterance_id"], *plan["foreign"]}
    parts = {name: (wave[:cut], wave[cut:end]) for name, wave in waveforms_of(path, wanted, rate_hz)}
    for own, foreign, speaker in plan.iter_rows():
        for polarity, ending in (("positive", own), ("negative", foreign)):
            waveform = join(parts[own][0], parts[ending][1], sample_rate_hz=rate_hz)
            pair_id = content_id("own-endings", own)
            yield SpokenItem(pair_id, polarity, "ending", speaker, None, waveform, config.context_s)

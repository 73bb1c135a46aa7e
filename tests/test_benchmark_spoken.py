"""Measures of spoken continuations against slow oracles: silence, edit distance, units lost on the way."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.benchmarks.continuation import judged_rows
from alignslm.benchmarks.spoken import measure_speech, silence_ratio
from alignslm.encoder import Encoded
from tests.listening_world import say

RATE_HZ = 16000
SEQUENCES = st.lists(st.integers(0, 3), max_size=70) | st.lists(st.sampled_from(["the", "boat", "a"]), max_size=70)


def naive_distance(left, right):
    """The table of the definition, cell by cell."""
    table = [[row + column for column in range(len(right) + 1)] for row in range(len(left) + 1)]
    for row, mine in enumerate(left, 1):
        for column, theirs in enumerate(right, 1):
            replaced = table[row - 1][column - 1] + (mine != theirs)
            table[row][column] = min(replaced, table[row - 1][column] + 1, table[row][column - 1] + 1)
    return table[-1][-1]


@given(SEQUENCES, SEQUENCES)
def test_edit_distance_is_that_of_the_definition_both_ways(left, right):
    assert Levenshtein.distance(left, right) == Levenshtein.distance(right, left) == naive_distance(left, right)


@pytest.mark.parametrize(
    ("found", "expected", "distance"),
    [("sitting", "kitten", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance_by_hand(found, expected, distance):
    assert Levenshtein.distance(found, expected) == distance


def naive_silence(waveform, rate_hz):
    frame = round(0.02 * rate_hz)
    cuts = [waveform[start : start + frame] for start in range(0, len(waveform), frame)]
    levels = [10 * np.log10(np.mean(np.float64(cut) ** 2) + 1e-30) for cut in cuts]
    quiet = [level < max(levels) - 40 or level < -60 for level in levels]
    return sum(len(cut) for cut, is_quiet in zip(cuts, quiet, strict=True) if is_quiet) / len(waveform)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 22050])
@pytest.mark.parametrize("num_samples", [1, 319, 320, 4001, 16000])
def test_silence_is_that_of_a_loop_over_frames(rate_hz, num_samples):
    rng = np.random.default_rng(num_samples)
    loudness = 10 ** rng.uniform(-4, 0, num_samples // 100 + 1).repeat(100)[:num_samples]
    waveform = (rng.uniform(-1, 1, num_samples) * loudness).astype(np.float32)
    assert silence_ratio(waveform, rate_hz) == pytest.approx(naive_silence(waveform, rate_hz))


def test_silence_by_hand():
    tone = np.sin(np.arange(RATE_HZ) / 5).astype(np.float32)
    silent = np.zeros(RATE_HZ, np.float32)
    assert silence_ratio(tone, RATE_HZ) == 0
    assert silence_ratio(silent, RATE_HZ) == 1
    assert silence_ratio(np.concatenate([tone, silent, silent, silent]), RATE_HZ) == 0.75
    assert silence_ratio(np.concatenate([tone, 0.009 * tone]), RATE_HZ) == 0.5  # 41 dB below
    assert silence_ratio(np.concatenate([tone, 0.011 * tone]), RATE_HZ) == 0  # 39 dB below
    assert silence_ratio(0.001 * tone, RATE_HZ) == 1  # -63 dB full scale: hiss
    assert silence_ratio(np.zeros(0, np.float32), RATE_HZ) is None


def test_a_pause_is_silence_however_loud_the_voice_is():
    waveform = np.concatenate([say("the dog ran"), np.zeros(RATE_HZ // 2, np.float32), say("the cat sat")])
    pause = RATE_HZ / 2 / len(waveform)
    share = silence_ratio(waveform, RATE_HZ)
    assert pause <= share < pause + 0.3
    assert silence_ratio(0.1 * waveform, RATE_HZ) == pytest.approx(share, abs=0.02)


class Levels:
    """Hears a unit a tenth of a second, from its loudness: changes of level can be counted by hand."""

    class contract:  # noqa: N801
        sample_rate_hz = 1000

    def encode(self, waveforms):
        units = [np.round(10 * np.abs(wave).reshape(-1, 100).mean(axis=1)).astype(np.uint16) for wave in waveforms]
        return [Encoded(found, np.ones_like(found)) for found in units]


def spoken(*levels):
    return np.repeat(np.array(levels, np.float32) / 10, 100)


def speech_of(**waveforms):
    rows = [
        (name, {"bytes": encode_flac(wave, 1000), "path": None}, len(wave), 1000, "ok" if len(wave) else "empty")
        for name, wave in waveforms.items()
    ]
    return pl.DataFrame(rows, schema=dict(tables.SPEECH.schema), orient="row")


SPEECH = speech_of(a=spoken(1, 2, 3, 4), b=spoken(1, 5, 3), c=spoken(), d=spoken(2, 3))
MEANT = pl.DataFrame({"continuation_id": ["d", "c", "b", "a"], "units": [[9], [], [1, 2, 3, 4], [1, 2, 3, 4]]})


def test_units_that_survive_are_no_error_and_what_was_not_spoken_is_not_measured():
    found = measure_speech(SPEECH, MEANT, Levels())
    assert found["continuation_id"].to_list() == ["a", "b", "c", "d"]
    assert found["unit_error_rate"].to_list() == [0.0, 0.5, None, 2.0]  # b: one other, one lost; d: one other, one more
    assert found["silence_ratio"].to_list() == [0.0, 0.0, None, 0.0]


def test_a_row_does_not_depend_on_its_neighbours():
    whole = measure_speech(SPEECH, MEANT, Levels())
    parts = [measure_speech(SPEECH[place : place + 1], MEANT, Levels()) for place in range(len(SPEECH))]
    assert pl.concat(parts).equals(whole)


def test_what_was_measured_stands_among_the_judged_rows():
    ids = SPEECH["continuation_id"]
    made = [(name, "p", 0, "m", 0, units, "eos", -1.0) for name, units in sorted(MEANT.rows())]
    continuations = pl.DataFrame(made, schema=dict(tables.CONTINUATIONS.schema), orient="row")
    stories = pl.DataFrame(
        {"continuation_id": ids, "prompt_id": "p", "sample_index": 0, "prompt_text": "a", "text": "b", "status": "ok"}
    )
    speech = SPEECH.drop("audio", "status").join(measure_speech(SPEECH, MEANT, Levels()), on="continuation_id")
    rows = judged_rows(stories, continuations, speech, {}, model="m", auto_bleu="gslm", grammar=None)
    tables.verify(rows, tables.CONTINUATION_METRICS, where="rows")
    found = {metric: rows.filter(metric=metric)["value"].to_list() for metric in ("unit_error_rate", "silence_ratio")}
    assert found == {"unit_error_rate": [0.0, 0.5, None, 2.0], "silence_ratio": [0.0, 0.0, None, 0.0]}
    assert rows.filter(metric="duration_s")["value"].to_list() == [0.4, 0.3, 0.0, 0.2]

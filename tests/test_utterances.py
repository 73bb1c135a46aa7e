"""Wanted utterances of a corpus of any size: what is read, and what is not."""

import numpy as np
import polars as pl
import pytest

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.recordings import recordings_in, recordings_of
from alignslm.tables import TableError
from alignslm.utterances import iter_audio_cells, iter_waveforms
from tests.messages import names

RATE_HZ = 8000


@pytest.fixture
def corpus(tmp_path):
    """Seven utterances in four files; u3 lasts 300 samples."""
    rows = [
        {
            "utterance_id": f"u{number}",
            "split": "train",
            "speaker_id": "s",
            "num_samples": 100 * number,
            "sample_rate_hz": RATE_HZ,
            "audio": {"bytes": encode_flac(np.full(100 * number, 0.5, np.float32), RATE_HZ), "path": None},
        }
        for number in range(1, 8)
    ]
    table = pl.DataFrame(rows, schema=dict(tables.UTTERANCES.schema))
    tables.write_shards([table], tables.UTTERANCES, tmp_path / "utterances", part_rows=2)
    return tmp_path / "utterances"


@pytest.fixture
def read(monkeypatch):
    """The files of which audio was read."""
    seen, really = [], tables.read

    def watched(table, path, columns=None):
        if columns is None or "audio" in columns:
            seen.append(path.name)
        return really(table, path, columns)

    monkeypatch.setattr(tables, "read", watched)
    return seen


def test_files_without_a_wanted_utterance_are_not_read(corpus, read):
    found = list(iter_waveforms(corpus, {"u7", "u4", "u3", "elsewhere"}, RATE_HZ))
    assert [(name, len(wave)) for name, wave in found] == [("u3", 300), ("u4", 400), ("u7", 700)]
    assert read == ["part-00001.parquet", "part-00003.parquet"]


def test_nothing_wanted_is_nothing_read_even_where_nothing_is(tmp_path, read):
    assert list(iter_audio_cells(tmp_path / "absent", [])) == []
    assert read == []


def test_one_file_is_a_table_too(corpus):
    (cells,) = iter_audio_cells(tables.parts(corpus)[1], ["u1", "u3"])
    assert cells["utterance_id"].to_list() == ["u3"]


def test_recordings_are_those_in_reach_or_all_of_them(corpus, read):
    prompts = pl.DataFrame({"prompt_id": ["b", "c", "a"], "utterance_id": ["u3", "u9", "u3"], "end_s": [0.01, 1, 0.02]})
    assert [(one.prompt_id, len(one.prompt)) for one in recordings_in(corpus, prompts)] == [("b", 80), ("a", 160)]
    assert read == ["part-00001.parquet"]
    with pytest.raises(TableError) as error:
        next(recordings_of(corpus, prompts))
    names(error.value, "'u9'", corpus, "1")
    assert len(read) == 1  # audio was not decoded for it

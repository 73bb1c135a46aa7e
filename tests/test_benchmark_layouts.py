"""StoryCloze, SALMon and slamkit's copies: pairs by name, and what is ambiguous refused."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from alignslm import audio
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.layouts import numbered
from alignslm.benchmarks.official import encode_found, find_items
from alignslm.config.benchmarks import Salmon, SlamkitBenchmarkConfig, SpokenStoryCloze
from alignslm.config.evaluation import BenchmarkConfig
from alignslm.config.loading import load_config
from alignslm.config.sources import FolderSource
from tests.level_encoder import FRAME, LevelEncoder
from tests.messages import names
from tests.tiny_lm import CONTRACT

CURE = ("fetch", "release", "data")
RATE_HZ = CONTRACT.sample_rate_hz


@cache  # libsndfile writes the time into a float file's header
def levels(*units: int, rate_hz=RATE_HZ) -> bytes:
    stream = io.BytesIO()
    waveform = np.repeat(np.array(units, np.float32) / 20, round(rate_hz / CONTRACT.frame_rate_hz))
    soundfile.write(stream, waveform, rate_hz, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def put(root, **files):
    for name, units in files.items():
        path = root / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(levels(*units))


def folder(root):
    return FolderSource(kind="folder", path=str(root))


def cloze(root):
    return SpokenStoryCloze(kind="tstorycloze", data=folder(root))


def copies(root, separator="_", *, subfolders=False):
    return SlamkitBenchmarkConfig(kind="slamkit", data=folder(root), separator=separator, subfolders=subfolders)


def pairs_of(found):
    """Return pair -> (file of the positive, file of the negative)."""
    by_pair = {}
    for pair, side, file in found.rows.select("pair_id", "polarity", "file").iter_rows():
        by_pair.setdefault(pair, {})[side] = file
    return {pair: (sides["positive"], sides["negative"]) for pair, sides in by_pair.items()}


def message(config):
    with pytest.raises(BenchmarkError) as error:
        find_items(config)
    return str(error.value)


def items_of(config, tmp_path):
    return pl.concat(encode_found(find_items(config), LevelEncoder(), shard_size=3, work=tmp_path / "work"))


# --- StoryCloze


def test_stories_named_by_side_are_paired_by_name(tmp_path):
    put(tmp_path, **{"tSC/b_correct": [1], "tSC/b_incorrect": [2], "tSC/a_x_correct": [3], "tSC/a_x_incorrect": [4]})
    (tmp_path / "tSC" / "._b_correct.wav").write_bytes(b"left by an archiver")
    assert pairs_of(find_items(cloze(tmp_path))) == {
        "tSC/a_x": ("tSC/a_x_correct.wav", "tSC/a_x_incorrect.wav"),
        "tSC/b": ("tSC/b_correct.wav", "tSC/b_incorrect.wav"),
    }


def test_a_mutual_beginning_is_context_and_no_unit_repeats_at_the_cut(tmp_path):
    root = tmp_path / "release"
    put(root, s_mutual=[1, 2, 3], s_correct=[4, 5], s_incorrect=[3, 3, 6])
    items = {row["polarity"]: row for row in items_of(cloze(root), tmp_path).iter_rows(named=True)}
    assert (items["positive"]["context_units"], items["positive"]["units"]) == ([1, 2, 3], [4, 5])
    # spoken on: the last unit of the beginning lasts into the ending, and is heard once
    assert (items["negative"]["context_units"], items["negative"]["units"]) == ([1, 2], [3, 6])
    assert items["negative"]["num_samples"] == 6 * FRAME


def test_a_beginning_of_another_sample_rate_is_joined_after_resampling(tmp_path):
    root = tmp_path / "release"
    put(root, s_correct=[4, 5], s_incorrect=[6])
    (root / "s_mutual.wav").write_bytes(levels(1, 1, rate_hz=2 * RATE_HZ))
    assert set(items_of(cloze(root), tmp_path)["num_samples"]) == {4 * FRAME, 3 * FRAME}


def test_whole_stories_beside_their_beginnings_are_refused(tmp_path):
    root = tmp_path / "release"
    put(root, s_mutual=[1, 2], s_correct=[1, 2, 4], s_incorrect=[1, 2, 5])
    with pytest.raises(BenchmarkError) as error:
        items_of(cloze(root), tmp_path)
    first, whole, cure = str(error.value).splitlines()
    names(first, root, "2 problems", "2 recordings")
    names(whole, "mutual", "(2): s_correct, s_incorrect")
    names(cure, *CURE)


def test_what_is_wrong_with_named_stories_is_listed(tmp_path):
    put(tmp_path, a_correct=[1], a_incorrect=[2], a_mutual=[3], b_correct=[1], b_incorrect=[1], c_correct=[1])
    put(tmp_path, d_mutual=[1], **{"17": [1]})
    for line, facts in zip(
        message(cloze(tmp_path)).splitlines(),
        [
            (tmp_path, "5"),
            ("mutual", "(1): d"),
            ("STORY_correct", "STORY_incorrect", "STORY_mutual", "(1): 17.wav"),
            ("mutual", "(2): b, c"),
            ("positive", "negative", "(1): c"),
            CURE,
        ],
        strict=True,
    ):
        names(line, *facts)


def test_numbered_stories_are_whole_and_paired_by_number(tmp_path):
    put(tmp_path, **{"1_true": [1], "2_false": [2], "10_f": [3], "9_t": [4], **{f"{n}_x": [5] for n in range(3, 9)}})
    found = find_items(cloze(tmp_path))
    assert pairs_of(found)["0"] == ("1_true.wav", "2_false.wav")
    assert pairs_of(found)["4"] == ("9_t.wav", "10_f.wav")  # 10 after 9, not after 1
    assert found.rows["context_file"].null_count() == len(found.rows)


def test_a_release_without_recordings_is_refused(tmp_path):
    names(message(cloze(tmp_path)), "data", tmp_path)


# --- slamkit's copies


@given(st.integers(1, 30), st.integers(0, 5), st.randoms())
def test_numbers_pair_whatever_their_order_and_start_and_if_whole_pairs_are_missing(
    tmp_path_factory, pairs, start, random
):
    root = tmp_path_factory.getbasetemp()
    there = [0, *(number for number in range(1, pairs) if random.random() < 0.7)]
    numbers = [start + 2 * pair + half for pair in there for half in (0, 1)]
    files = [root / f"{number}+{random.choice('xyz')}.wav" for number in numbers]
    rows, problems = numbered(random.sample(files, len(files)), root, separator="+")
    assert problems == []
    sides = {(row["pair_id"], row["polarity"]): row["file"] for row in rows}
    halves = {"positive": files[::2], "negative": files[1::2]}
    assert sides == {(str(pair), side): half[k].name for side, half in halves.items() for k, pair in enumerate(there)}


def test_the_shipped_choices_read_slamkits_own_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("SLAM_REFERENCE_PATH", str(tmp_path))
    for name, folder_name, separator in (("sblimp", "sblimp", "+"), ("swuggy", "swuggy_inter", "_")):
        for part in ("a", "b"):
            put(tmp_path / folder_name / part, **{f"{n}{separator}x": [n] for n in (2, 3, 6, 7)})
        found = find_items(load_config("benchmark", f"{name}-slamkit", BenchmarkConfig, Path()))
        assert pairs_of(found)["b/2"] == (f"b/6{separator}x.wav", f"b/7{separator}x.wav")
        assert len(pairs_of(found)) == 4


def test_subfolders_have_numbers_of_their_own(tmp_path):
    put(tmp_path, **{"easy/0_a": [1], "easy/1_a": [2], "hard/0_a": [3], "hard/1_a": [4]})
    found = find_items(copies(tmp_path, subfolders=True))
    assert pairs_of(found) == {"easy/0": ("easy/0_a.wav", "easy/1_a.wav"), "hard/0": ("hard/0_a.wav", "hard/1_a.wav")}
    assert set(found.rows.select("pair_id", "subtype").rows()) == {("easy/0", "easy"), ("hard/0", "hard")}
    outside = [line for line in message(copies(tmp_path)).splitlines() if line.endswith("(2): easy, hard")]
    assert len(outside) == 1


def test_a_missing_a_doubled_and_a_nameless_file_are_refused(tmp_path):
    put(tmp_path, **{"0_a": [1], "1_a": [2], "2_b": [3], "2_c": [4], "4_d": [5], "x_5": [6], "6+e": [7]})
    for line, facts in zip(
        message(copies(tmp_path)).splitlines(),
        [
            (tmp_path, "8", "5"),
            ("missing", "(2): ./3, ./5"),
            ("number", "'_'", "(2): 6+e.wav, x_5.wav"),
            ("positive", "negative", "(2): 1", "positive+positive"),
            ("number", "(2): 2_b.wav, 2_c.wav"),
            CURE,
        ],
        strict=True,
    ):
        names(line, *facts)


# --- SALMon


def salmon(root, *parts):
    return Salmon(kind="salmon", data=folder(root), parts=parts or ("rir_consistency", "bg_alignment"))


def test_both_releases_of_salmon_give_the_same_items(tmp_path):
    sounds = {("rir_consistency", n, j): [n + 1, j + 5] for n in range(3) for j in (0, 1)}
    sounds |= {("bg_alignment", n, j): [n + 7, j + 12] for n in (0, 11) for j in (0, 1)}
    zipped, hub = tmp_path / "zip" / "salmon_benchmark", tmp_path / "hub"
    put(zipped, **{f"{part}/sample_{n}_{j}": units for (part, n, j), units in sounds.items()})
    for part in ("rir_consistency", "bg_alignment"):
        numbers = sorted({n for name, n, _ in sounds if name == part}, reverse=True)
        write_part(hub, part, [(part, n, levels(*sounds[part, n, 0]), levels(*sounds[part, n, 1])) for n in numbers])
    one, two = (items_of(salmon(root), tmp_path / root.name) for root in (tmp_path / "zip", hub))
    assert one.drop("audio").equals(two.drop("audio"))
    row = one.row(by_predicate=pl.col("item_id") == "bg_alignment/011-negative", named=True)
    assert (row["pair_id"], row["type"], row["subtype"], row["units"]) == (
        "bg_alignment/011", "alignment", "bg_alignment", [18, 13],
    )  # fmt: skip
    assert two["audio"].struct.field("path")[0] == "bg_alignment/train.parquet#1/negative_audio"


def write_part(root, part, rows):
    (root / part).mkdir(parents=True)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    task, ind, good, bad = zip(*rows, strict=True)
    columns = {
        "task": pa.array(task),
        "ind": pa.array(ind),
        "positive_audio": pa.array([{"bytes": b, "path": None} for b in good], cell),
        "negative_audio": pa.array([{"bytes": b, "path": None} for b in bad], cell),
    }
    pq.write_table(pa.table(columns), root / part / "train.parquet")


def test_what_is_wrong_with_salmons_wavs_is_listed(tmp_path):
    put(tmp_path, **{"rir_consistency/sample_0_0": [1], "rir_consistency/sample_0_1": [2]})
    put(tmp_path, **{"rir_consistency/sample_1_0": [1], "rir_consistency/sample_2_2": [1]})
    for line, facts in zip(
        message(salmon(tmp_path)).splitlines(),
        [
            (tmp_path, "3"),
            ("sample_NUMBER_0", "sample_NUMBER_1", "(1): rir_consistency/sample_2_2.wav"),
            ("parquet", "(1): bg_alignment"),
            ("positive", "negative", "(1): rir_consistency/001"),
            CURE,
        ],
        strict=True,
    ):
        names(line, *facts)


def test_what_is_wrong_with_salmons_parquet_is_listed(tmp_path):
    sound = levels(1)
    write_part(
        tmp_path, "rir_consistency", [("rir_consistency", 4, sound, sound), ("rir_consistency", 4, sound, sound)]
    )
    write_part(tmp_path, "bg_alignment", [("sentiment_alignment", 0, sound, sound)])
    (tmp_path / "gender_consistency").mkdir()
    pq.write_table(pa.table({"ind": [1]}), tmp_path / "gender_consistency" / "x.parquet")
    found = message(salmon(tmp_path, "rir_consistency", "bg_alignment", "gender_consistency")).splitlines()
    both = "negative+negative+positive+positive"
    for line, facts in zip(
        found[1:4],
        [
            ("ind", "(2): rir_consistency/004-negative, rir_consistency/004-positive"),
            ("column", "task, positive_audio, negative_audio", "ind", "(1): gender_consistency/x.parquet"),
            ("(1): rir_consistency/004", both),
        ],
        strict=True,
    ):
        names(line, *facts)
    names(found[4], "sentiment_alignment", "'bg_alignment'", "(1): bg_alignment/train.parquet row 0")


def test_levels_come_back_as_units():
    waveform, _ = audio.decode(levels(3, 3, 7))
    assert LevelEncoder().encode([waveform])[0].units.tolist() == [3, 7]

"""Recorded corpora: every layout gives one table, faults are told together, nothing vanishes uncounted."""

import io
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from alignslm import audio, tables
from alignslm.config.corpora import DatasetSource
from alignslm.corpora import find_corpus, utterances_of
from alignslm.corpora.index import CorpusError, fingerprint
from alignslm.corpora.summary import CorpusCounter
from alignslm.corpora.texts import texts_of
from alignslm.fetching import FetchError
from alignslm.provenance import content_id
from tests.messages import names
from tests.tiny_hub import point_hub_at, serving
from tests.tiny_librispeech import (
    ALL,
    COUNTS,
    RATE_HZ,
    SPLITS,
    recordings,
    spoken,
    write_librispeech,
    write_listed,
    write_mls,
    write_parquet,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_librispeech(tmp_path_factory.mktemp("published") / "LibriSpeech", COUNTS)


@pytest.fixture
def root(published, tmp_path):
    return shutil.copytree(published, tmp_path / "LibriSpeech")


def read(config, tmp_path, *, shard_size=3, workers=2):
    corpus = find_corpus(config)
    frames = utterances_of(corpus, config, workers=workers, shard_size=shard_size, work=tmp_path / "work")
    tables.write_shards(frames, tables.UTTERANCES, tmp_path / "utterances")
    return tables.read(tables.UTTERANCES, tmp_path / "utterances")


def told(config, tmp_path):
    with pytest.raises(CorpusError) as error:
        read(config, tmp_path)
    return str(error.value).splitlines()


MEND = ("exclude_ids", "experiments/corpus/")


def part(kind, root, subsets=SPLITS, max_utterances=ALL, **fields):
    source = {"kind": "folder", "path": str(root)}
    return {
        "kind": kind,
        "source": source,
        "subsets": subsets,
        "max_utterances": max_utterances,
        "alignments": None,
        **fields,
    }


# --- what comes out ---


def test_every_utterance_is_there_with_its_text_and_the_bytes_it_came_in(root, tmp_path):
    frame = read(recordings(root), tmp_path)
    expected = {one.name: one for one in spoken(COUNTS)}
    assert frame["utterance_id"].to_list() == sorted(expected)
    splits = {subset: split for split, subsets in SPLITS.items() for subset in subsets}
    for row in frame.to_dicts():
        one = expected[row["utterance_id"]]
        assert (row["split"], row["speaker_id"], row["text"]) == (splits[one.subset], one.speaker, one.text)
        assert row["audio"] == {"bytes": one.flac, "path": f"{one.name}.flac"}
        assert (row["num_samples"], row["sample_rate_hz"]) == (one.num_samples, RATE_HZ)
        assert [row[name] for name in ("prompt_text", "continuation_text", "prompt_end_s", "word_ends_s")] == [None] * 4


@pytest.mark.parametrize("layout", ["parquet", "audiofolder"])
def test_other_layouts_give_the_same_table(root, tmp_path, layout):
    reference = read(recordings(root), tmp_path)
    if layout == "parquet":
        columns = {"utterance_id": "id", "speaker_id": "speaker_id", "text": "text", "audio": "audio"}
        subsets = {split: tuple(f"all/{name}/*.parquet" for name in names) for split, names in SPLITS.items()}
        other = part("parquet", write_parquet(tmp_path / "p", COUNTS), subsets, columns=columns)
    else:
        other = part("audiofolder", write_listed(tmp_path / "l", COUNTS))
    found = read(recordings(root, parts={"other": other}), tmp_path / "other")
    assert found.equals(reference)


@pytest.mark.parametrize(("shard_size", "workers"), [(1, 1), (4, 3), (100, 2)])
def test_shards_and_workers_change_no_byte(root, tmp_path, shard_size, workers):
    one = read(recordings(root), tmp_path / "one")
    two = read(recordings(root), tmp_path / "two", shard_size=shard_size, workers=workers)
    assert one.equals(two)


def test_a_second_run_repeats_the_first_and_adds_nothing(root, tmp_path):  # T10: no append
    first = read(recordings(root), tmp_path)
    assert read(recordings(root), tmp_path).equals(first)


def test_mls_in_its_layout_flac_or_opus(tmp_path):
    counts = {"train": 4, "dev": 2, "test": 2}
    root = write_mls(tmp_path / "mls_english", counts)
    subsets = {"train": ["train"], "valid": ["dev"], "dev": [], "test": ["test"]}
    flac = min((root / "train").rglob("*.flac"))
    stream = io.BytesIO()
    soundfile.write(stream, audio.decode(flac.read_bytes())[0], RATE_HZ, format="OGG", subtype="OPUS")
    flac.unlink()
    flac.with_suffix(".opus").write_bytes(stream.getvalue())
    frame = read(recordings(root, parts={"mls": part("mls", root, subsets)}), tmp_path)
    assert frame["utterance_id"].to_list() == [f"{one.speaker}_{one.chapter}_{one.number:06d}" for one in mls(counts)]
    assert frame["text"].to_list() == [one.text for one in mls(counts)]
    first = frame.row(0, named=True)
    assert first["audio"] == {"bytes": stream.getvalue(), "path": f"{first['utterance_id']}.opus"}


def mls(counts):
    return spoken(counts, first_speaker=900)


def test_two_parts_are_one_corpus_and_a_reader_of_both_is_left_out_of_training(root, tmp_path):  # D11
    more = write_mls(tmp_path / "mls", {"train": 6}, first_speaker=103)  # 103 and 104 are in LibriSpeech's dev and test
    both = {
        "librispeech": part("librispeech", root),
        "mls": part("mls", more, {"train": ["train"], "valid": [], "dev": [], "test": []}),
    }
    config = recordings(root, parts=both, overlapping_speakers="exclude")
    assert find_corpus(config).left.crossing == 4
    frame = read(config, tmp_path)
    speakers = frame.group_by("speaker_id").agg(pl.col("split").n_unique())
    assert speakers["split"].max() == 1
    assert len(frame) == 10 + 2
    lines = told(recordings(root, parts=both), tmp_path)
    first, crossing, cure = lines
    names(first, "2 problems", "16 utterances")
    names(crossing, "speaker", "(2): 103 (train, valid), 104 (test, train)")
    names(cure, *MEND)


def test_a_speaker_of_both_valid_and_test_is_a_problem_whatever_the_policy(root, tmp_path):  # D11
    shutil.copytree(root / "dev-clean" / "103", root / "test-clean" / "103")
    for number, old in enumerate(sorted((root / "test-clean" / "103" / "203").glob("*.flac"))):
        old.rename(old.with_name(f"103-203-{number + 50:04d}.flac"))
    transcripts = root / "test-clean" / "103" / "203" / "103-203.trans.txt"
    transcripts.write_text(transcripts.read_text().replace("-000", "-005"))
    lines = told(recordings(root, overlapping_speakers="exclude"), tmp_path)
    assert any("speaker" in line and line.endswith("(1): 103 (test, valid)") for line in lines)


# --- choosing ---


def limited(root, count):
    limit = {"train": count, "valid": None, "dev": None, "test": None}
    return recordings(root, parts={"librispeech": part("librispeech", root, max_utterances=limit)})


def test_a_larger_limit_keeps_the_smaller_ones_choice_and_both_are_counted(root):  # G8
    few, many = find_corpus(limited(root, 2)), find_corpus(limited(root, 4))
    assert (few.left.over_limit, many.left.over_limit) == (4, 2)
    chosen = few.rows.filter(split="train")["utterance_id"]
    assert set(chosen) < set(many.rows.filter(split="train")["utterance_id"])
    every = find_corpus(recordings(root)).rows.filter(split="train")["utterance_id"].to_list()
    assert set(chosen) == set(sorted(every, key=lambda name: content_id("corpus", name))[:2])


def test_a_limited_mls_split_is_chosen_as_if_it_had_been_read_whole(tmp_path):
    root = write_mls(tmp_path / "mls", {"train": 8, "dev": 2, "test": 2})
    subsets = {"train": ["train"], "valid": ["dev"], "dev": [], "test": ["test"]}
    limit = {"train": 3, "valid": None, "dev": None, "test": None}
    corpus = find_corpus(recordings(root, parts={"mls": part("mls", root, subsets, max_utterances=limit)}))
    every = [line.split("\t")[0] for line in (root / "train" / "transcripts.txt").read_text().splitlines()]
    lowest = sorted(every, key=lambda name: content_id("corpus", name))[:3]
    assert set(corpus.rows.filter(split="train")["utterance_id"]) == set(lowest)
    assert corpus.left.over_limit == 5


def test_left_out_utterances_are_counted_and_misspelt_ones_told(root, tmp_path):
    corpus = find_corpus(recordings(root, exclude_ids=("100-200-0000",)))
    assert (len(corpus.rows), corpus.left.by_request) == (9, 1)
    for line, facts in zip(
        told(recordings(root, exclude_ids=("100-200-9999",)), tmp_path),
        [("1", "10 utterances"), ("exclude_ids", "(1): 100-200-9999"), MEND],
        strict=True,
    ):
        names(line, *facts)


# --- what is wrong, all at once ---


def test_faults_of_the_listing_are_told_together(root, tmp_path):
    chapter = root / "train-clean-100" / "100" / "200"
    (chapter / "100-200.trans.txt").write_text(
        "100-200-0000 TEXT\n100-200-0000 AGAIN\n100-200-0007 NOT SPOKEN\n100-200-0008\n"
    )
    (root / "train-clean-100" / "101" / "201" / "101-201.trans.txt").unlink()
    (root / "train-clean-100" / "102" / "202" / "102-202-0000.flac").rename(chapter / "102-202-0000.flac")
    shutil.rmtree(root / "test-clean")
    at = "librispeech/train-clean-100"
    for line, facts in zip(
        told(recordings(root), tmp_path),
        [
            ("11 problems", "4 utterances"),
            ("name", "SPEAKER-CHAPTER-NUMBER", f"(1): {at}/100/200/102-202-0000.flac"),
            (
                *("audio", f"(3): {at}/100/200/100-200-0007.flac, {at}/100/200/100-200-0008.flac"),
                f"{at}/102/202/102-202-0000.flac",
            ),
            ("subset", root, "(1): librispeech/test-clean"),
            (
                *("transcript", f"(4): {at}/100/200/100-200-0001.flac, {at}/100/200/102-202-0000.flac"),
                f"{at}/101/201/101-201-0000.flac, {at}/101/201/101-201-0001.flac",
            ),
            ("transcript", "text", f"(1): {at}/100/200/100-200.trans.txt:4"),
            ("transcript", f"(1): {at}/100/200/100-200.trans.txt:2"),
            MEND,
        ],
        strict=True,
    ):
        names(line, *facts)


def wav(samples, rate_hz=RATE_HZ, subtype="FLOAT"):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="WAV", subtype=subtype)
    return stream.getvalue()


TONE = np.sin(np.arange(8000) / 7).astype(np.float32)


def test_faults_of_audio_are_told_together_and_nothing_is_written(root, tmp_path):
    files = sorted(root.rglob("*.flac"))
    longer = audio.encode_flac(np.tile(TONE, 85), RATE_HZ)
    bad = [
        audio.encode_flac(TONE, 8000),
        audio.encode_flac(TONE, 48000),
        wav(np.stack([TONE, TONE], axis=1)),
        audio.encode_flac(TONE[:0], RATE_HZ),
        wav(np.where(np.arange(8000) == 5, np.nan, TONE).astype(np.float32)),
        longer,
        files[6].read_bytes()[:-2000],
        b"no audio at all",
        b"",
    ]
    for file, data in zip(files, bad, strict=False):
        file.write_bytes(data)
    where = [f"librispeech/{file.relative_to(root)}" for file in files]
    for line, facts in zip(
        told(recordings(root), tmp_path),
        [
            ("9 problems", "10 utterances"),
            ("48000 Hz", "16000 Hz", f"(1): {where[1]}"),
            ("8000 Hz", "16000 Hz", f"(1): {where[0]}"),
            ("40 s", "max_duration_s", f"(1): {where[5]}"),
            ("0 samples", f"(1): {where[3]}"),
            ("NaN", "infinite", f"(1): {where[4]}"),
            ("bytes", f"(1): {where[8]}"),
            ("flac decoder lost sync", f"(1): {where[6]}"),
            ("Format not recognised", f"(1): {where[7]}"),
            ("2 channels", f"(1): {where[2]}"),
            MEND,
        ],
        strict=True,
    ):
        names(line, *facts)
    assert list(tmp_path.glob("*utterances*")) == []


def test_three_hours_of_audio_are_refused_by_their_header(root, tmp_path):
    file = min(root.rglob("*.flac"))
    data = bytearray(file.read_bytes())
    data[21:26] = ((data[21] & 0xF0) << 32 | 3 * 3600 * RATE_HZ).to_bytes(5, "big")  # STREAMINFO's number of samples
    file.write_bytes(data)
    where = f"librispeech/{file.relative_to(root)}"
    names(told(recordings(root), tmp_path)[1], "40 s", "max_duration_s", f"(1): {where}")


def test_a_stored_stream_without_length_is_told(root, tmp_path):
    file = min(root.rglob("*.flac"))
    data = bytearray(file.read_bytes())
    data[21:26] = ((data[21] & 0xF0) << 32).to_bytes(5, "big")
    file.write_bytes(data)
    names(told(recordings(root), tmp_path)[1], "header", "length", f"(1): librispeech/{file.relative_to(root)}")


def test_repeated_ids_and_repeated_audio_are_told_with_both_places(root, tmp_path):
    first, second = sorted((root / "dev-clean").rglob("*.flac"))
    second.write_bytes(first.read_bytes())
    for line, facts in zip(
        told(recordings(root), tmp_path),
        [
            ("1", "10 utterances"),
            ("audio", "(1)", f"librispeech/{second.relative_to(root)}", f"librispeech/{first.relative_to(root)}"),
            MEND,
        ],
        strict=True,
    ):
        names(line, *facts)
    parts = {"one": part("librispeech", root), "two": part("librispeech", root)}
    lines = told(recordings(root, parts=parts), tmp_path)
    names(lines[0], "10 problems", "20 utterances")
    path = "train-clean-100/100/200/100-200-0000.flac"
    names(lines[1], "id", "(10): 100-200-0000", f"one/{path}", f"two/{path}")
    assert lines[1].endswith("2 more")


def test_faults_of_mls(tmp_path):
    root = write_mls(tmp_path / "mls", {"train": 4, "dev": 2})
    max(root.rglob("*.flac")).unlink()
    with (root / "train" / "transcripts.txt").open("a") as stream:
        stream.write("nonsense\ttext\n901_201_000009\t\n")
    extra = root / "train" / "audio" / "901" / "201" / "901_201_000777.flac"
    extra.write_bytes(b"")
    subsets = {"train": ["train"], "valid": ["dev"], "dev": [], "test": ["test"]}
    for line, facts in zip(
        told(recordings(root, parts={"mls": part("mls", root, subsets)}), tmp_path),
        [
            ("5 problems", "5 utterances"),
            ("id", "SPEAKER_BOOK_NUMBER", "(1): mls/train/transcripts.txt:5", "nonsense"),
            ("audio", "(1): mls/train/transcripts.txt:4", "901_201_000001"),
            ("subset", "transcripts.txt", root, "(1): mls/test"),
            ("transcript", "(1): mls/train/audio/901/201/901_201_000777.flac"),
            ("text", "(1): mls/train/transcripts.txt:6", "901_201_000009"),
            MEND,
        ],
        strict=True,
    ):
        names(line, *facts)


def test_faults_of_parquet(tmp_path):
    root = write_parquet(tmp_path / "p", COUNTS)
    columns = {"utterance_id": "id", "speaker_id": "speaker_id", "text": "text", "audio": "audio"}
    subsets = {split: [f"all/{name}/*.parquet" for name in names] for split, names in SPLITS.items()}
    subsets["dev"] = ["all/none/*.parquet"]
    train, valid, test = (root / "all" / name / "0000.parquet" for name in COUNTS)
    frame = pl.read_parquet(train)
    empty = pl.lit({"bytes": None, "path": "x"}, dtype=tables.AUDIO)
    frame.with_columns(
        text=pl.when(pl.int_range(pl.len()) == 2).then(None).otherwise("text"),
        audio=pl.when(pl.int_range(pl.len()) == 4).then(empty).otherwise("audio"),
    ).write_parquet(train)
    pl.read_parquet(valid).drop("text").write_parquet(valid)
    test.write_bytes(b"PAR1 but not really")
    lines = told(recordings(root, parts={"hub": part("parquet", root, subsets, columns=columns)}), tmp_path)
    names(lines[0], "4 problems", "6 utterances")
    by_place = {line.rpartition("(1): ")[2]: line for line in lines[1:-1]}
    columns_there = "file, audio, speaker_id, chapter_id, id"
    names(by_place["hub/all/dev-clean/0000.parquet"], "column text", columns_there)
    names(by_place["hub/all/train-clean-100/0000.parquet row 2"], "text")
    names(by_place["hub/all/none/*.parquet"], root, "pattern")
    names(by_place["hub/all/test-clean/0000.parquet"], "parquet")
    write_parquet(tmp_path / "again", COUNTS)
    for name in COUNTS:
        shutil.copy(tmp_path / "again" / "all" / name / "0000.parquet", root / "all" / name / "0000.parquet")
    frame.with_columns(audio=pl.when(pl.int_range(pl.len()) == 4).then(empty).otherwise("audio")).write_parquet(train)
    subsets["dev"] = []
    for line, facts in zip(
        told(recordings(root, parts={"hub": part("parquet", root, subsets, columns=columns)}), tmp_path),
        [("1", "10 utterances"), ("bytes", "audio", "(1): hub/all/train-clean-100/0000.parquet row 4"), MEND],
        strict=True,
    ):
        names(line, *facts)


def test_faults_of_a_listed_folder(tmp_path):
    root = write_listed(tmp_path / "l", COUNTS)
    lines = (root / "metadata.csv").read_text().splitlines()
    lines[1] = lines[1].replace("audio/", "sound/")
    lines[2] = lines[2].replace(",100,", ",,")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "outside.flac").write_bytes(b"x")
    with (root / "metadata.csv").open("a") as stream:
        stream.write("../outside.flac,test-clean,9,\n")
    for line, facts in zip(
        told(recordings(root, parts={"own": part("audiofolder", root)}), tmp_path),
        [
            ("3 problems", "8 utterances"),
            ("outside", "(1): own/metadata.csv:12"),
            ("speaker_id", "(1): own/metadata.csv:3"),
            ("audio", "(1): own/metadata.csv:2"),
            MEND,
        ],
        strict=True,
    ):
        names(line, *facts)
    (root / "metadata.csv").write_text("file_name,split\n")
    listed = told(recordings(root, parts={"own": part("audiofolder", root)}), tmp_path)[1]
    names(listed, "column", "subset, speaker_id, text", "(1): own/metadata.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_metadata_csv_of_spreadsheets_is_read_by_its_mark(tmp_path, encoding):
    root = write_listed(tmp_path / "l", COUNTS)
    text = (root / "metadata.csv").read_text(encoding="utf-8").splitlines()
    text[1] = ",".join([*text[1].split(",")[:3], "Café au lait"])
    (root / "metadata.csv").write_bytes("\r\n".join([*text[:2], "", *text[2:]]).encode(encoding))
    frame = read(recordings(root, parts={"own": part("audiofolder", root)}), tmp_path)
    assert (len(frame), frame["text"][0]) == (10, "café au lait")


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 3), ("utf-16-le", 3), ("utf-16-be", 3)])
def test_texts_that_are_neither_utf_8_nor_marked_are_told_with_file_line_and_cure(root, tmp_path, encoding, line):
    listed = write_listed(tmp_path / "l", COUNTS)
    text = (listed / "metadata.csv").read_text().splitlines()
    text[2] = text[2].rpartition(",")[0] + ",déjà vu"
    (listed / "metadata.csv").write_bytes("\n".join(text).encode(encoding))
    lines = told(recordings(listed, parts={"own": part("audiofolder", listed)}), tmp_path)
    names(lines[1], f"line {line}", "UTF-8", "iconv", "(1): own/metadata.csv")
    mls = write_mls(tmp_path / "mls", COUNTS)
    for released, kind, file in ((root, "librispeech", "*.trans.txt"), (mls, "mls", "transcripts.txt")):
        transcripts = min(released.rglob(file))
        transcripts.write_bytes(("é\n" + transcripts.read_text()).encode(encoding))
        lines = told(recordings(released, parts={"own": part(kind, released)}), tmp_path)
        names("\n".join(lines), "line 1", "UTF-8", f"own/{transcripts.relative_to(released)}")


def test_files_of_one_name_are_different_utterances_if_their_folders_are(tmp_path):
    root = write_listed(tmp_path / "l", COUNTS)
    lines = (root / "metadata.csv").read_text().splitlines()
    for number in (1, 2):
        _, subset, speaker, text = lines[number].split(",")
        (root / f"voice{number}").mkdir()
        next(iter(root.glob(f"{lines[number].split(',')[0]}"))).rename(root / f"voice{number}/0001.flac")
        lines[number] = f"voice{number}/0001.flac,{subset},{speaker},{text}"
    (root / "metadata.csv").write_text("\n".join(lines))
    frame = read(recordings(root, parts={"own": part("audiofolder", root)}), tmp_path)
    own = [Path(line.split(",")[0]).stem for line in lines[3:]]
    assert frame["utterance_id"].to_list() == sorted(["voice1/0001", "voice2/0001", *own])


def test_a_place_that_an_error_prints_may_be_left_out_by_pasting_it(root, tmp_path):
    first, second = sorted((root / "dev-clean").rglob("*.flac"))
    second.write_bytes(first.read_bytes())
    (root / "train-clean-100/100/200/100-200-0001.flac").unlink()
    absent = told(recordings(root), tmp_path)[1].partition("): ")[2]
    (line,) = told(recordings(root, exclude_ids=(absent,)), tmp_path)[1:-1]
    twice = line.partition("): ")[2]
    for named in (twice, twice.partition(" (as ")[0]):
        corpus = find_corpus(recordings(root, exclude_ids=(absent, named)))
        assert (len(corpus.rows), corpus.left.by_request) == (8, 2)
        assert second.stem not in corpus.rows["utterance_id"]
    assert len(read(recordings(root, exclude_ids=(absent, twice)), tmp_path / "again")) == 8


def test_one_voice_in_all_splits_is_a_corpus_if_it_is_allowed(tmp_path):
    root = write_listed(tmp_path / "l", COUNTS)
    table = pl.read_csv(root / "metadata.csv", infer_schema=False)
    table.with_columns(speaker_id=pl.lit("anna")).write_csv(root / "metadata.csv")
    one = {"own": part("audiofolder", root)}
    for policy in ("error", "exclude"):
        lines = told(recordings(root, parts=one, overlapping_speakers=policy), tmp_path)
        names("\n".join(lines), "overlapping_speakers: allow")
    corpus = find_corpus(recordings(root, parts=one, overlapping_speakers="allow"))
    assert (len(corpus.rows), corpus.left.crossing) == (10, 0)


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.int64())])
def test_a_column_of_sound_that_holds_no_bytes_is_told(tmp_path, kind):
    root = write_parquet(tmp_path / "p", COUNTS)
    file = root / "all/dev-clean/0000.parquet"
    table = pq.read_table(file)
    cells = pa.array([None] * len(table), pa.struct([("bytes", kind), ("path", pa.string())]))
    pq.write_table(table.set_column(table.schema.get_field_index("audio"), "audio", cells), file)
    columns = {"utterance_id": "id", "speaker_id": "speaker_id", "text": "text", "audio": "audio"}
    subsets = {split: [f"all/{name}/*.parquet" for name in names] for split, names in SPLITS.items()}
    lines = told(recordings(root, parts={"hub": part("parquet", root, subsets, columns=columns)}), tmp_path)
    names(lines[1], "column audio", "bytes", "(1): hub/all/dev-clean/0000.parquet")


def test_a_folder_that_no_variable_names_is_told(root, monkeypatch):
    monkeypatch.delenv("LIBRISPEECH", raising=False)
    with pytest.raises(FetchError) as error:
        find_corpus(recordings("$LIBRISPEECH"))
    names(error.value, "$LIBRISPEECH", "variable")


# --- interruption, account, texts, datasets of the Hub ---


def test_an_interrupted_reading_is_taken_up(root, tmp_path, capsys):
    config = recordings(root)
    corpus = find_corpus(config)
    frames = utterances_of(corpus, config, workers=1, shard_size=3, work=tmp_path / "work")
    next(frames), next(frames)
    frames.close()
    read(config, tmp_path)
    kept = capsys.readouterr().out.splitlines()
    assert kept == ["corpus: 2 of 4 shards kept from an interrupted run"]


def test_work_is_taken_up_only_for_the_same_files(root):
    corpus = find_corpus(recordings(root))
    before = fingerprint(corpus.rows, corpus.roots)
    assert fingerprint(corpus.rows, corpus.roots) == before
    file = min(root.rglob("*.flac"))
    file.write_bytes(file.read_bytes() + b"\0")
    assert fingerprint(corpus.rows, corpus.roots) != before


def accounted(config, tmp_path, expected=None):
    corpus, books = find_corpus(config), CorpusCounter()
    frames = utterances_of(corpus, config, workers=1, shard_size=4, work=tmp_path / "w")
    tables.write_shards(books.watch(frames, expected), tables.UTTERANCES, tmp_path / "u")
    return books.close(corpus.left)


def test_the_account_counts_everything(root, tmp_path):
    account = accounted(recordings(root, exclude_ids=("100-200-0000",)), tmp_path)
    seconds = sum(one.num_samples for one in spoken(COUNTS) if one.subset == "dev-clean") / RATE_HZ
    assert account.splits["valid"].model_dump() == {
        "utterances": 2, "speakers": 1, "seconds": round(seconds, 3), "transcribed": 2, "aligned": 0
    }  # fmt: skip
    assert account.splits["train"].utterances + account.left_out_by_request == COUNTS["train-clean-100"]


def test_a_pinned_corpus_that_changed_is_refused_before_it_is_published(root, tmp_path):  # V2
    first = accounted(recordings(root), tmp_path / "1").content_sha256
    assert accounted(recordings(root), tmp_path / "2", first).content_sha256 == first
    file = min(root.rglob("*.flac"))
    file.write_bytes(audio.encode_flac(TONE, RATE_HZ))
    with pytest.raises(CorpusError) as error:
        accounted(recordings(root), tmp_path / "3", first)
    other = accounted(recordings(root), tmp_path / "4").content_sha256
    names(error.value, "content_sha256", other, first, "experiments/corpus/")
    assert not (tmp_path / "3" / "u").exists()


def test_texts_are_training_transcripts_cut_after_their_first_words(root):
    config = recordings(root, num_texts=3)
    texts = texts_of(find_corpus(config).rows, config)
    assert len(texts) == 3
    said = {one.name: one.text for one in spoken(COUNTS) if one.subset == "train-clean-100"}
    for name, prompt, continuation in texts.iter_rows():
        assert f"{prompt} {continuation}" == said[name]
        assert len(prompt.split()) == 4
    tables.verify(texts, tables.TEXTS, where="texts")
    more = texts_of(find_corpus(config).rows, config.model_copy(update={"num_texts": 5}))
    assert set(texts["text_id"]) < set(more["text_id"])


def test_a_dataset_of_the_hub_is_downloaded_as_a_dataset_and_only_its_chosen_files(root, tmp_path, monkeypatch):
    files = {
        file.relative_to(tmp_path / "p").as_posix(): file.read_bytes()
        for file in write_parquet(tmp_path / "p", COUNTS).rglob("*.parquet")
    }
    columns = {"utterance_id": "id", "speaker_id": "speaker_id", "text": "text", "audio": "audio"}
    subsets = {split: tuple(f"all/{name}/*.parquet" for name in names) for split, names in SPLITS.items()}
    source = DatasetSource(kind="hub", repo="lab/speech", revision="main")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving() as served:
        served.repos["lab/speech"] = {**files, "all/other/0000.parquet": b"never asked for"}
        point_hub_at(served.url, monkeypatch)
        config = recordings(root, parts={"hub": {**part("parquet", root, subsets, columns=columns), "source": source}})
        found = read(config, tmp_path / "hub-read")
        asked = [path for _, path, _ in served.requests if "speech" in path]
    assert found.equals(read(recordings(root), tmp_path))
    assert len(asked) >= 3
    assert all("datasets/lab/speech" in path for path in asked)
    assert not [path for path in asked if "other" in path]

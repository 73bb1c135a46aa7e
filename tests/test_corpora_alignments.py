"""Word times from published alignments: both formats agree, and a file that is not what it promises is told."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.config.sources import FolderSource
from alignslm.corpora import find_corpus, utterances_of
from alignslm.corpora.alignments import Word, aligned_line, text_grid_words
from alignslm.corpora.index import CorpusError
from tests.messages import names
from tests.tiny_librispeech import (
    ALL,
    COUNTS,
    SPLITS,
    recordings,
    spoken,
    text_grid,
    write_alignments,
    write_librispeech,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_librispeech(tmp_path_factory.mktemp("published") / "LibriSpeech", COUNTS)


def aligned(root, folder):
    part = {
        "kind": "librispeech",
        "source": {"kind": "folder", "path": str(root)},
        "subsets": SPLITS,
        "max_utterances": ALL,
        "alignments": FolderSource(kind="folder", path=str(folder)),
    }
    return recordings(root, parts={"librispeech": part})


def ends_in(config):
    return dict(find_corpus(config).rows.select("utterance_id", "word_ends_s").iter_rows())


def write_text_grids(folder):
    folder.mkdir()
    for one in spoken(COUNTS):
        (folder / f"{one.name}.TextGrid").write_text(text_grid(one))
    return folder


@pytest.mark.parametrize("form", ["alignment.txt", "TextGrid"])
def test_every_word_of_the_transcript_has_its_end(root, tmp_path, form):
    folder = tmp_path / "a"
    folder = write_alignments(folder, COUNTS) if form == "alignment.txt" else write_text_grids(folder)
    assert ends_in(aligned(root, folder)) == {one.name: one.word_ends_s for one in spoken(COUNTS)}


def test_the_table_keeps_them(root, tmp_path):
    config = aligned(root, write_alignments(tmp_path / "a", COUNTS))
    frames = utterances_of(find_corpus(config), config, workers=1, shard_size=4, work=tmp_path / "work")
    table = pl.concat(frames)
    assert table["word_ends_s"].list.len().to_list() == table["text"].str.split(" ").list.len().to_list()


def test_an_utterance_that_was_not_aligned_or_not_as_transcribed_has_none(root, tmp_path):
    folder = write_text_grids(tmp_path / "a")
    first, second, third, fourth, *others = spoken(COUNTS)
    (folder / f"{first.name}.TextGrid").unlink()
    word = second.text.split()[0]
    grid = folder / f"{second.name}.TextGrid"
    grid.write_text(grid.read_text().replace(f'"{word}"', '"elephant"', 1))
    grid = folder / f"{third.name}.TextGrid"
    grid.write_text(grid.read_text().replace(f'"{third.text.split()[0]}"', '"<unk>"', 1))
    grid = folder / f"{fourth.name}.TextGrid"
    grid.write_text(grid.read_text().replace(f'"{fourth.text.split()[-1]}"', '""', 1))
    found = ends_in(aligned(root, folder))
    assert [found[one.name] for one in (first, second, fourth)] == [None] * 3
    assert {one.name: found[one.name] for one in (third, *others)} == {
        one.name: one.word_ends_s for one in (third, *others)
    }


SHORT = """\
File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
2
"IntervalTier"
"phones"
0
1.5
1
0
1.5
"words"
"IntervalTier"
"words"
0
1.5
3
0
0.25
""
0.25
0.75
"say ""hi"" 2"
0.75
1.5
"o'clock"
"""


def test_the_short_form_a_label_that_looks_like_a_tier_and_quotes_in_labels():
    assert text_grid_words(SHORT) == [Word('say "hi" 2', 0.75), Word("o'clock", 1.5)]


WORDS = st.text("abcdefghij'", min_size=1, max_size=6)
INTERVALS = st.lists(st.tuples(st.one_of(st.just(""), WORDS), st.integers(1, 200)), min_size=1, max_size=10)


@given(INTERVALS)
def test_both_forms_and_the_line_form_say_the_same(intervals):
    ends = [sum(length for _, length in intervals[: at + 1]) / 100 for at in range(len(intervals))]
    labels = [label for label, _ in intervals]
    expected = [Word(label, end) for label, end in zip(labels, ends, strict=True) if label]
    starts = [0.0, *ends[:-1]]
    body = [f'{start}\n{end}\n"{label}"' for start, end, label in zip(starts, ends, labels, strict=True)]
    short = "\n".join(['"IntervalTier"', '"words"', "0", str(ends[-1]), str(len(body)), *body])
    assert text_grid_words(short) == expected
    line = f'7-8-0001 "{",".join(labels)}" "{",".join(map(str, ends))}"'
    assert aligned_line(line, 1) == ("7-8-0001", expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7-8-0001 A,B 0.5,0.6", ("3", "WORD,,WORD", "0.5,0.6,1.2")),
        ('7-8-0001 "A,B" "0.5"', ("3", "2 words", "1 times")),
        ('7-8-0001 "A,B" "0.5,x"', ("'x'", "3")),
        ('7-8-0001 "A,B" "0.5,0.4"', ("rise",)),
    ],
)
def test_a_line_that_is_no_alignment(line, expected):
    with pytest.raises(CorpusError) as error:
        aligned_line(line, 3)
    names(error.value, *expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHORT.replace('"IntervalTier"\n"words"', '"TextTier"\n"words"'), ("interval tier", "words")),
        (SHORT.replace("\n3\n0\n0.25", "\n9\n0\n0.25"), ("tier words", "3", "0")),
        (SHORT.replace('0.75\n1.5\n"o', '0.75\n0.5\n"o'), ("rise",)),
    ],
)  # fmt: skip
def test_a_text_grid_that_has_no_words(text, expected):
    with pytest.raises(CorpusError) as error:
        text_grid_words(text)
    names(error.value, *expected)


def test_faults_of_alignments_are_told_with_the_corpus(root, tmp_path):
    folder = write_text_grids(tmp_path / "a")
    (folder / "b.alignment.txt").write_text("nonsense\n")
    with pytest.raises(CorpusError) as error:
        find_corpus(aligned(root, folder))
    names(str(error.value).splitlines()[1], "line 1", "WORD,,WORD", "0.5,0.6,1.2", "(1): b.alignment.txt")
    with pytest.raises(CorpusError) as error:
        find_corpus(aligned(root, tmp_path / "none"))
    names(str(error.value).splitlines()[1], "alignments", "librispeech", f"(1): {tmp_path / 'none'}")


def test_word_times_of_another_recording_are_told(root, tmp_path):
    folder = write_text_grids(tmp_path / "a")
    one = next(spoken(COUNTS))
    grid = folder / f"{one.name}.TextGrid"
    grid.write_text(grid.read_text().replace(f"xmax = {one.word_ends_s[-1]}\n", "xmax = 99.0\n"))
    config = aligned(root, folder)
    with pytest.raises(CorpusError) as error:
        list(utterances_of(find_corpus(config), config, workers=1, shard_size=4, work=tmp_path / "work"))
    names(error.value, "end", "audio", "(1)")

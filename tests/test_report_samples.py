"""The page of samples: what it shows is what the tables hold, and every clip can be played."""

import html
import io
import re
import shutil
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import soundfile
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from alignslm import tables
from alignslm.audio import decode, rms
from alignslm.cli import app
from tests.micro import ROOT
from tests.report_world import build

SYSTEMS = ("base", "sft", "r1", "ground-truth")
NAMES = {"ground truth": "ground-truth"}
COUNT = 12
CARD = re.compile(
    r'<div class="clip"><div class="who">(?P<name>[^<]+?) (?:<span>(?P<duration>[^<]+)</span>)?</div>\n'
    r'(?:<div class="scores">training (?P<training>\S+) · held out (?P<heldout>\S+)</div>\n)?<p>(?P<text>[^<]*)</p>\n'
    r'(?:<audio [^>]*src="(?P<file>[^"]+)"|no speech)'
)


class Shown(NamedTuple):
    """One clip as a page shows it."""

    system: str
    text: str
    scores: tuple[str, ...]
    duration_s: str | None
    file: str | None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An experiment in which one prompt has no text and one continuation no speech, both among the first twelve."""
    root = tmp_path_factory.mktemp("experiment")
    shutil.copytree(ROOT / "experiments", root / "experiments")
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    build(root / "artifacts")
    return root


def write(world, folder, *options):
    return CliRunner().invoke(app, ["samples-page", str(folder), "-C", str(world), *options])


@pytest.fixture(scope="module")
def written(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "samples"
    done = write(world, folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def expected(world):
    """Per prompt: its text, then (system, transcript, both scores) of every first continuation, read with polars."""
    artifacts = world / "artifacts"
    prompts = pl.read_parquet(artifacts / "prompts.parquet").sort("prompt_id").head(COUNT)
    return [
        (row["prompt_text"], [first(artifacts, system, row["prompt_id"]) for system in SYSTEMS])
        for row in prompts.iter_rows(named=True)
    ]


def first(artifacts, system, prompt_id):
    judged = pl.read_parquet(artifacts / "eval" / system / "judged.parquet").filter(prompt_id=prompt_id)
    judged = judged.filter(pl.col("sample_index") == pl.col("sample_index").min())
    scores = tuple(
        f"{judged.filter(metric=metric)['value'].item():.2f}" for metric in ("judge_score", "heldout_judge_score")
    )
    transcripts = pl.read_parquet(artifacts / "samples" / system / "transcripts.parquet")
    return system, transcripts.filter(source_id=judged["continuation_id"][0])["text"].item(), scores


def cards(written):
    """Read the HTML page: one Shown per clip, prompts included."""
    found = []
    for match in CARD.finditer((written / "index.html").read_text()):
        name, text = html.unescape(match["name"]), html.unescape(match["text"])
        scores = tuple(score for score in (match["training"], match["heldout"]) if score)
        found.append(Shown(NAMES.get(name, name), text, scores, match["duration"], match["file"]))
    return found


def rows(written):
    """Read the Markdown page as a Markdown parser does: one Shown per row of the prompts' tables."""
    page = MarkdownIt("commonmark").enable("table").render(written.with_name("samples.md").read_text())
    found = []
    for row in re.findall(r"<tr>\n(.*?)</tr>", page.split("<h2>", 1)[1], re.DOTALL):
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        if cells:
            name, text, training, heldout, audio = (html.unescape(cell) for cell in cells)
            link = re.fullmatch(r'<a href="samples/([^"]+)">(.+)</a>', audio)
            scores = tuple(cell for cell in (training, heldout) if cell)
            file, duration = link.groups() if link else (None, None)
            found.append(Shown(NAMES.get(name, name), text, scores, duration, file))
    return found


def test_both_pages_show_the_same(written):
    assert cards(written) == rows(written)


def test_transcripts_and_scores_are_the_tables(written, expected):
    found = cards(written)
    size = 1 + len(SYSTEMS)
    assert len(found) == COUNT * size
    for place, (prompt, continuations) in enumerate(expected):
        head, *rest = found[place * size : (place + 1) * size]
        assert head[:3] == ("prompt", prompt or "the boy as heard (ASR)", ())
        assert [one[:3] for one in rest] == continuations


def test_a_prompt_without_text_and_a_continuation_without_speech_are_among_them(written, expected):
    assert [prompt for prompt, _ in expected].count(None) == 1
    silent = [one for one in cards(written) if one.file is None]
    assert [(one.system, one.duration_s) for one in silent] == [("sft", None)]


def test_every_clip_decodes_to_the_stated_duration(written):
    heard = [one for one in cards(written) if one.file]
    assert len({one.file for one in heard}) == len(heard)
    assert {one.file for one in heard} == {path.name for path in written.glob("*.ogg")}
    for one in heard:
        waveform, rate_hz = decode((written / one.file).read_bytes())
        assert rate_hz == 16000
        assert f"{len(waveform) / rate_hz:.1f} s" == one.duration_s
    assert soundfile.info(io.BytesIO((written / "01-base.ogg").read_bytes())).subtype == "OPUS"


def test_the_clip_is_the_speech_of_the_table(world, written):
    """A tone of another pitch than the continuations' 300 Hz is the prompt: files were not mixed up. Levels stay."""
    utterances = {row["utterance_id"]: row for row in tables.read(
        tables.UTTERANCES, world / "artifacts/corpus/utterances").iter_rows(named=True)}  # fmt: skip
    prompts = pl.read_parquet(world / "artifacts/prompts.parquet").sort("prompt_id").head(COUNT)
    for number, name in enumerate(prompts["utterance_id"], 1):
        source, source_hz = decode(utterances[name]["audio"]["bytes"])
        clip, rate_hz = decode((written / f"{number:02d}-prompt.ogg").read_bytes())
        assert pitch_hz(clip, rate_hz) == pytest.approx(pitch_hz(source, source_hz), abs=4)
        assert rms(clip) == pytest.approx(rms(source), rel=0.05)
    clip, rate_hz = decode((written / "01-base.ogg").read_bytes())
    assert pitch_hz(clip, rate_hz) == pytest.approx(300, abs=4)


def pitch_hz(waveform, rate_hz):
    crossings = ((waveform[:-1] < 0) & (waveform[1:] >= 0)).nonzero()[0]
    return rate_hz * (len(crossings) - 1) / (crossings[-1] - crossings[0])


def test_means_are_of_the_shown_and_of_all(world, written, expected):
    table = written.with_name("samples.md").read_text().split("## Prompt 1")[0]
    for place, system in enumerate(SYSTEMS):
        name = next((label for label, one in NAMES.items() if one == system), system)
        judged = pl.read_parquet(world / "artifacts/eval" / system / "judged.parquet")
        cells = [name]
        for at, metric in enumerate(("judge_score", "heldout_judge_score")):
            shown = pl.Series([float(continuations[place][2][at]) for _, continuations in expected]).mean()
            cells += [shown, judged.filter(metric=metric)["value"].mean()]
        (row,) = re.findall(rf"^\| {name} \| (.*) \|$", table, re.MULTILINE)
        assert [float(cell) for cell in row.split(" | ")] == pytest.approx(cells[1:], abs=0.0101)


def test_text_is_escaped(written):
    page = (written / "index.html").read_text()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert page.index("<audio") < page.index("<table")  # one comes to listen
    assert not re.search(r"https?://", page)


def test_markdown_shows_text_as_it_is():
    from alignslm.report.samples import _plain

    text = "a | b *c* _d_ `e` <i>f</i> [g](h) ~i~ &amp; #j \\k\nl"
    page = MarkdownIt("commonmark").enable("table").render(f"| x |\n|---|\n| {_plain(text)} |\n")
    assert html.unescape(re.search(r"<td>(.*)</td>", page)[1]) == text.replace("\n", " ")


def test_another_call_writes_the_same_and_removes_only_its_own_clips(world, written, tmp_path):
    folder = tmp_path / "samples"
    (folder).mkdir()
    (folder / "44-base.ogg").write_bytes(b"an earlier call's")
    (folder / "theme.ogg").write_bytes(b"mine")
    assert write(world, folder).exit_code == 0
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found.pop("theme.ogg") == b"mine"
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert found.pop("index.html") == before.pop("index.html")
    assert found.keys() == before.keys()
    for name, clip in found.items():
        assert np.array_equal(decode(clip)[0], decode(before[name])[0])
    assert folder.with_name("samples.md").read_bytes() == written.with_name("samples.md").read_bytes()


def test_an_unknown_system_is_an_error_that_lists_those_there_are(world, tmp_path):
    done = write(world, tmp_path / "samples", "--systems", "base,r7")
    assert done.exit_code == 1
    assert "'r7' is not a system of this experiment" in done.output
    assert "base, " in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_was_not_evaluated_is_an_error_with_the_file_and_the_cure(world, tmp_path):
    root = tmp_path / "experiment"
    shutil.copytree(world, root)
    (root / "artifacts/eval/sft/judged.parquet").unlink()
    done = write(root, tmp_path / "samples")
    assert done.exit_code == 1
    assert "eval/sft/judged.parquet" in done.output.replace("\n", "")
    assert "dvc repro" in done.output

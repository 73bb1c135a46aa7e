# ruff: noqa: E501 (a message is easier to compare on one line)
"""Speech in, continuations out: the pipeline's own draws, the same bytes for the same command, and a page to hear them on."""

import ast
import http.client
import importlib.metadata
import json
import math
import os
import re
import runpy
import shutil
import socket
import time
import wave
from dataclasses import replace
from threading import Thread

import huggingface_hub.constants
import numpy as np
import polars as pl
import pytest
import soundfile
from playwright.sync_api import expect, sync_playwright
from typer.testing import CliRunner

from alignslm import audio, tables
from alignslm.cli import app
from alignslm.code_deps import _closure
from alignslm.demo.page import (
    UPLOAD_BYTES,
    DemoError,
    answering,
    build_page,
    load_gradio,
    page_app,
    ticked,
    write_examples,
)
from alignslm.demo.space import LEFT_OUT, export_space, requirements
from alignslm.generation import PlayError, SpeechPipeline, SpokenLM
from alignslm.generation.cards import inline_cards
from alignslm.generation.prompt import SILENCE_RMS
from alignslm.generation.studio import judged
from alignslm.judge import JudgeInput, load_judge
from alignslm.provenance import ContractError
from alignslm.serving import server_of
from tests.messages import names
from tests.micro import ROOT
from tests.playing_world import build
from tests.test_listening_page import DESKTOP, PHONE, chromium
from tests.tiny_hub import point_hub_at, serving

RATE = 16000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("play") / "experiment")


@pytest.fixture(scope="module")
def studio(world):
    return SpeechPipeline.open(world)


@pytest.fixture(scope="module")
def speaker(studio):
    return studio.load_model("base")


@pytest.fixture(scope="module")
def prompt_id(world):
    return pl.read_parquet(world / "artifacts/prompts.parquet").filter(split="test")["prompt_id"][0]


@pytest.fixture(scope="module")
def recording(studio, prompt_id, tmp_path_factory):
    """A prompt of the experiment as a file."""
    prompt = studio.prompt(prompt_id)
    path = tmp_path_factory.mktemp("said") / "prompt.wav"
    soundfile.write(path, prompt.waveform, prompt.sample_rate_hz, subtype="PCM_16")
    return path


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- draws ---


def test_a_prompt_of_the_experiment_gets_the_draws_that_the_pipeline_made(world, speaker, prompt_id):
    takes = speaker.generate(prompt_id, num_continuations=2)
    folder = world / "artifacts/samples/base"
    drawn = tables.read(tables.CONTINUATIONS, folder / "continuations.parquet").filter(prompt_id=prompt_id)
    spoken = tables.read(tables.SPEECH, folder / "speech")
    heard = tables.read(tables.TRANSCRIPTS, folder / "transcripts.parquet")
    assert len(takes) == len(drawn) == 2
    for take, row in zip(takes, drawn.to_dicts(), strict=True):
        sound = spoken.filter(continuation_id=row["continuation_id"])["audio"][0]
        words = heard.filter(source_id=row["continuation_id"]).row(0, named=True)
        assert (list(take.units), take.seed, take.finish_reason) == (row["units"], row["seed"], row["finish_reason"])
        assert np.array_equal(take.waveform, audio.decode(sound["bytes"])[0])
        assert (take.text, take.status) == (words["text"], words["status"])


def test_three_lines_of_python_give_sound_and_letters(world, recording, tmp_path):
    speaker = SpokenLM.load("base", root=world)
    takes = speaker.generate(recording, num_continuations=3)
    takes[0].save(tmp_path / "continuation.wav")

    assert len(takes) == 3
    assert len({take.units for take in takes}) > 1
    said, rate_hz = soundfile.read(tmp_path / "continuation.wav")
    assert (len(said), rate_hz) == (len(takes[0].waveform), RATE)
    assert all(audio.rms(take.waveform) > 10 * SILENCE_RMS and take.seconds > 0.3 for take in takes)
    assert all(re.fullmatch(r"[a-z' ]+", take.text) for take in takes if take.status == "ok")


def test_name_and_format_of_a_file_change_nothing(speaker, recording, tmp_path):
    waveform, rate_hz = soundfile.read(recording, dtype="float32")
    (tmp_path / "other name.flac").write_bytes(audio.encode_flac(waveform, rate_hz))
    soundfile.write(tmp_path / "stereo.wav", np.stack([waveform, waveform], axis=1), rate_hz, subtype="PCM_16")
    units = [
        [take.units for take in speaker.generate(name, num_continuations=2)] for name in sorted(tmp_path.iterdir())
    ]
    assert units == [[take.units for take in speaker.generate(recording, num_continuations=2)]] * 2


def test_more_draws_keep_the_fewer_and_settings_matter(speaker, recording):
    prompt = speaker.studio.prompt(recording)
    three = [take.units for take in speaker.generate(prompt, num_continuations=3)]
    assert [take.units for take in speaker.generate(prompt, num_continuations=1)] == three[:1]
    assert [take.units for take in speaker.generate(prompt, num_continuations=3, seed=1)] != three
    greedy = {take.units for take in speaker.generate(prompt, num_continuations=3, temperature=1e-4)}
    assert len(greedy) == 1
    assert len({take.units for take in speaker.generate(prompt, num_continuations=3, top_p=1e-6)}) == 1


# --- what cannot be continued ---


def said(path, waveform, rate_hz=RATE):
    soundfile.write(path, waveform, rate_hz)
    return path


NOISE = np.random.default_rng(0).normal(0, 0.1, RATE * 6).astype(np.float32)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (NOISE, ("6.0 s", "4 s", "prompts.max_duration_s", "--prompt-seconds 4")),
        (NOISE * 0, ("silent", "-180 dB", "-60")),
        (NOISE[:0], ("silent", "no samples", "-60")),
        (NOISE[: RATE // 10], ("0.10 s", "units", "10", "prompts.min_units")),
        (np.full(RATE, np.nan, np.float32), ("NaN", "infinite")),
    ],
    ids=["long", "silence", "nothing", "short", "broken"],
)
def test_sound_that_cannot_be_continued_says_why(studio, tmp_path, waveform, message):
    path = tmp_path / "0.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    seconds = None if len(waveform) == len(NOISE) and waveform.any() else 4
    with pytest.raises(PlayError) as error:
        studio.prompt(path, seconds=seconds)
    names(error.value, path.name, *message)


def test_files_that_are_no_sound_say_what_would_be(studio, tmp_path):
    text = tmp_path / "a.wav"
    text.write_text("words")
    with pytest.raises(PlayError) as raised:
        studio.prompt(text)
    names(raised.value, text, "flac", "ogg", "mp3")
    with pytest.raises(PlayError) as raised:
        studio.prompt("b.wav")
    names(raised.value, "b.wav", "wav, flac, ogg, mp3", "prompt")
    with pytest.raises(PlayError) as raised:
        studio.prompt(text, seconds=-1)
    names(raised.value, "-1", "positive")
    for seconds in (math.nan, math.inf, 1e300):
        with pytest.raises(PlayError) as raised:
            studio.prompt(text, seconds=seconds)
        names(raised.value, "seconds", f"{seconds:g}")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_continuations": 0}, ("num_continuations", "1", "0")),
        ({"temperature": 0.0}, ("temperature", "0", "0.01")),
        ({"top_p": 1.5}, ("top_p", "1e-06", "1", "1.5")),
        ({"num_continuations": 10**9}, ("num_continuations", "10000")),
        ({"temperature": 1e300}, ("temperature", "100", "1e+300")),
        ({"temperature": 1e-300}, ("temperature", "0.0001", "1e-300")),
        ({"temperature": math.nan}, ("temperature", "nan")),
        ({"top_p": math.nan}, ("top_p", "nan")),
    ],
)
def test_impossible_sampling_is_refused(speaker, prompt_id, wanted, message):
    with pytest.raises(PlayError) as raised:
        speaker.generate(prompt_id, **wanted)
    names(raised.value, *message)


# --- models ---


def test_models_that_are_not_there_say_what_is_and_how_to_get_them(world, studio, tmp_path):
    there = world / "artifacts/checkpoints"
    with pytest.raises(PlayError) as error:
        studio.load_model("r9")
    names(error.value, "'r9'", there, "base", "dvc repro", "dvc pull", "Hub", "owner/name")
    for name in ("params.yaml", "experiments"):
        (shutil.copytree if (world / name).is_dir() else shutil.copy)(world / name, tmp_path / name)
    with pytest.raises(PlayError) as error:
        SpeechPipeline.open(tmp_path)
    absent = (tmp_path / "artifacts" / name for name in ("encoder", "vocoder", "asr"))
    names(error.value, "dvc repro", "dvc pull", *absent, "--root")


def test_a_model_of_other_units_is_refused_in_one_message(world, studio, tmp_path):
    shutil.copytree(world / "artifacts/checkpoints/base", tmp_path / "other")
    path = tmp_path / "other/unit_contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_units": 500, "layer": 11}))
    with pytest.raises(ContractError) as error:
        studio.load_model(str(tmp_path / "other"))
    names(error.value, "layer: 11", tmp_path / "other", "None", world / "artifacts/encoder", "num_units: 500")


def test_a_model_of_the_hub_says_what_the_local_one_says(world, studio, speaker, prompt_id, tmp_path, monkeypatch):
    folder = world / "artifacts/checkpoints/base"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with serving() as served:
        point_hub_at(served.url, monkeypatch)
        served.repos["someone/base"] = files
        takes = studio.load_model("someone/base@main").generate(prompt_id, num_continuations=2)
    assert [take.units for take in takes] == [take.units for take in speaker.generate(prompt_id, num_continuations=2)]
    assert takes[0].model == "someone/base@main"


# --- the command ---


def test_the_command_writes_a_folder_that_only_its_question_decides(world, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    twin = tmp_path / "twin"
    shutil.copytree("artifacts/checkpoints/base", twin)
    words = ["generate", recording, "--compare", f"base,{twin}", "-n", 2, "--seed", 7, "--out"]
    first, again = tmp_path / "one" / "first", tmp_path / "again"
    result = run(*words, first)
    assert result.exit_code == 0, result.output
    assert run(*words, again).exit_code == run(*words, again).exit_code == 0
    assert bytes_of(first) == bytes_of(again)
    names = {f"{model}-{n}{end}.wav" for model in ("base", "twin") for n in (1, 2) for end in ("", "-after-prompt")}
    assert set(bytes_of(first)) == names | {"prompt.wav", "transcript.jsonl", "index.html"}
    rows = [json.loads(line) for line in (first / "transcript.jsonl").read_text().splitlines()]
    assert [(row["model"], row["sample_index"]) for row in rows] == [
        ("base", 0),
        ("base", 1),
        (str(twin), 0),
        (str(twin), 1),
    ]
    assert [row["units"] for row in rows[:2]] == [row["units"] for row in rows[2:]]  # the same weights, the same chance
    for row in rows:
        lengths = [frames(first / row[name]) for name in ("audio", "audio_after_prompt")]
        assert lengths[1] - lengths[0] == frames(first / "prompt.wav")
        assert row["seconds"] == round(lengths[0] / RATE, 3)
        assert (row["text"] or f"({row['status']})") in result.stdout
    assert "base: 2 continuations, " in result.stderr
    page = (first / "index.html").read_text()
    assert page.count("<audio") == page.count('preload="metadata"') == 1 + 4 * 2  # a player shows its length
    title = f"prompt.wav, continued by base, {twin}"
    assert re.findall(r"<(?:title|h1)>(.*?)</", page) == [title, title]
    assert re.findall(r'src="([^"]+)"', page)[:3] == ["prompt.wav", "base-1-after-prompt.wav", "base-1.wav"]


def test_the_folder_has_the_judges_scores(world, studio, prompt_id, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    judge = studio.experiment.params.judge
    result = run("generate", prompt_id, "-m", "base", "-n", 3, "--out", tmp_path / "judged")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "judged/transcript.jsonl").read_text().splitlines()]
    found = load_judge(studio.experiment.judge, world / "artifacts/judges" / judge, device="cpu").judge(
        [JudgeInput(row["prompt_text"], row["text"] or "") for row in rows]
    )
    assert [row["judge_score"] for row in rows] == [one.score for one in found]
    shown = [f"{one.score:.2f}" for one in found if one.score is not None]
    assert shown
    page = (tmp_path / "judged/index.html").read_text()
    assert re.findall(r"judge ([\d.]+)", page) == shown
    assert f"judge, {judge}, rates" in page
    assert all(score in result.stdout for score in shown)
    assert run("generate", prompt_id, "-m", "base", "-n", 3, "--no-judge", "--out", tmp_path / "bare").exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "bare/transcript.jsonl").read_text().splitlines()]
    assert [row["judge_score"] for row in rows] == [None] * 3
    assert "judge" not in re.sub("judge_score", "", (tmp_path / "bare/index.html").read_text())


def test_what_was_not_heard_has_no_score(speaker, studio, prompt_id):
    (take,) = speaker.generate(prompt_id, num_continuations=1)
    prompt = replace(take.prompt, text="tom walks")
    takes = [
        replace(take, prompt=prompt, text="he runs", status="ok"),
        replace(take, prompt=prompt, text=None, status="empty"),
        replace(take, prompt=replace(prompt, text=None), text="he runs", status="ok"),
    ]
    scores = [one.judge_score for one in judged(takes, studio.load_judge())]
    assert scores[1:] == [None, None]
    assert 1 <= scores[0] <= 5


def frames(path):
    with wave.open(str(path)) as stored:
        return stored.getnframes()


def test_the_command_refuses_before_it_draws(world, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    (tmp_path / "mine.txt").write_text("precious")
    for words, message in (
        (["--compare", "base,base"], ("base", "itself")),
        (["--compare", "base,r9"], ("'r9'", "artifacts/checkpoints")),
        (["-m", "base", "--out", tmp_path], (tmp_path, "exists", "transcript.jsonl", "--out")),
    ):
        result = run("generate", recording, *words)
        assert result.exit_code == 1
        names(result.stderr, *message)
    assert bytes_of(tmp_path) == {"mine.txt": b"precious"}


def test_a_name_cannot_write_into_the_page(studio, prompt_id):
    prompt = studio.prompt(prompt_id)
    hostile = type(prompt)(**{**vars(prompt), "name": "<script>alert(1)</script>", "text": "<b>"})
    html = inline_cards(hostile, {"<i>": []})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<i>" not in html


# --- the page ---


@pytest.fixture(scope="module")
def examples(studio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    write_examples(studio, folder)
    return folder


@pytest.fixture(scope="module")
def served(studio, examples):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = page_app(build_page(studio, ["base", "ntp", "r1"], examples), host="127.0.0.1", port=port)
    server = server_of(app, host="127.0.0.1", port=port)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def visited(served):
    """A browser's page; at the end it must have asked nobody but its server and thrown nothing."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        page = browser.new_context(**DESKTOP).new_page()
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served)
        yield page
        browser.close()
    assert [url for url in requests if not url.startswith((served, "data:", "blob:"))] == []
    assert errors == []


def test_base_and_the_last_round_are_compared_at_first(visited, studio, world):
    """Alphabetical order would tick base, ntp and r1."""
    boxes = visited.get_by_role("checkbox")
    expect(boxes).to_have_count(3)
    assert [box.is_checked() for box in boxes.all()] == [True, False, True]
    two = studio.params.model_copy(update={"preferences": studio.params.preferences | {"r2": "as r1"}})
    later = studio.params.checkpoints["r1"].model_copy(update={"train_on": "pairs/r2"})
    two = two.model_copy(
        update={
            "checkpoints": studio.params.checkpoints | {"r2": later},
            "systems": studio.params.systems | {"r2": studio.params.systems["r1"]},
        }
    )
    assert ticked(["base", "ntp", "r1", "r2", "sft"], two) == ["base", "r2"]
    assert ticked(["owner/mine", "base", "sft"], two) == ["owner/mine", "base"]


def test_an_example_is_one_click_away(visited, studio, world, examples):
    test = pl.read_parquet(world / "artifacts/prompts.parquet").filter(split=studio.params.evaluation.split)
    shown = {file.stem.replace("-", " ") for file in examples.iterdir()}
    assert len(shown) == min(3, len(test))
    assert shown <= set(test["prompt_text"])
    visited.get_by_role("button", name=min(shown)).click()
    expect(visited.get_by_role("button", name="Reset audio")).to_be_visible()
    visited.get_by_role("checkbox", name="r1").uncheck()
    visited.get_by_role("button", name="Continue").click()
    column = visited.get_by_role("region", name="base")
    expect(column).to_be_visible(timeout=30_000)
    expect(visited.locator(".take.prompt .who")).to_contain_text(f"{min(shown).replace(' ', '-')}.wav")


def test_a_file_is_continued_on_the_page(visited, speaker, recording):
    visited.get_by_role("checkbox", name="r1").uncheck()
    visited.get_by_role("button", name="Continue").click()
    expect(visited.get_by_role("alert")).to_have_text("Record something or upload an audio file first.")
    visited.locator("input[type=file]").first.set_input_files(recording)
    expect(visited.get_by_role("button", name="Reset audio")).to_be_visible()
    visited.get_by_role("button", name="Continue").click()
    column = visited.get_by_role("region", name="base")
    expect(column).to_be_visible(timeout=30_000)
    takes = speaker.generate(recording, num_continuations=2, prompt_seconds=4.0)
    expect(column.locator("p")).to_have_text([take.text or "(no words recognized)" for take in takes])
    heard = visited.evaluate("""async () => Promise.all([...document.querySelectorAll(".takes audio")].map(async sound => {
        sound.muted = true
        await sound.play()
        return sound.duration
    }))""")
    assert heard == pytest.approx(
        [takes[0].prompt.seconds, *(s for take in takes for s in (take.prompt.seconds + take.seconds, take.seconds))],
        abs=0.01,
    )
    visited.set_viewport_size(PHONE["viewport"])
    assert visited.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if folder := os.environ.get("ALIGNSLM_SCREENSHOTS"):
        visited.screenshot(path=f"{folder}/demo.png", full_page=True)


def test_the_page_takes_no_more_than_a_recording(served):
    for path in ("gradio_api/upload", "gradio_api/queue/join"):
        connection = http.client.HTTPConnection(served.removeprefix("http://").strip("/"))
        connection.putrequest("POST", f"/{path}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        piece = b"x" * (1 << 20)
        for _ in range(UPLOAD_BYTES >> 20):
            connection.send(b"100000\r\n" + piece + b"\r\n")
        connection.send(b"1\r\nx\r\n")
        response = connection.getresponse()
        assert (response.status, len(response.read()) < 200) == (413, True)
        connection.close()


def test_the_page_tells_faults_in_its_own_words(studio, tmp_path):
    answer = answering(studio)
    silence = str(said(tmp_path / "quiet.wav", np.zeros(RATE)))
    assert answer(silence, ["base"], 2, 0.8, 4.0, 0).startswith(
        '<p role="alert">quiet.wav is silent (-180 dB full scale; '
    )
    assert answer(silence, [], 2, 0.8, 4.0, 0) == '<p role="alert">Choose a model first.</p>'


def test_an_emptied_seed_is_the_experiments_own(studio, recording):
    answer, own = answering(studio), studio.params.seeds.evaluation
    without, with_own, with_another = (
        answer(str(recording), ["base"], 1, 0.8, 4.0, seed) for seed in (None, own, own + 1)
    )
    assert without == with_own != with_another


# --- the Space ---


def test_a_space_is_whole_and_shows_the_same_page(world, examples, tmp_path, monkeypatch, capsys):
    space = tmp_path / "space"
    result = run("demo", "--root", world, "--models", "base", "--export-space", space)
    assert result.exit_code == 0, result.output
    shown = {}
    gr = load_gradio()

    def launch(page, **options):
        shown.update(page=page, **options)
        return page, "http://127.0.0.1:7860", None

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: None)
    capsys.readouterr()
    runpy.run_path(str(space / "app.py"), run_name="__main__")
    assert capsys.readouterr().out == "the page is at http://127.0.0.1:7860; Ctrl-C ends it\n"
    assert shown["quiet"]  # gradio's own lines advise share=True
    assert {file.name for file in (space / "examples").iterdir()} == {file.name for file in examples.iterdir()}
    assert (shown["share"], shown["page"].analytics_enabled, shown["page"].title) == (
        False,
        False,
        "What does a spoken language model say next?",
    )
    matter = (space / "README.md").read_text().split("---\n")[1]
    assert f"sdk: gradio\nsdk_version: {gr.__version__}\n" in matter
    assert "app_file: app.py\n" in matter
    assert not [path for path in space.rglob("*") if path.is_file() and not os.access(path, os.W_OK)]
    code = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / "alignslm").rglob("*.py")}
    assert {path.relative_to(space): path.read_bytes() for path in (space / "alignslm").rglob("*.py")} == code
    with pytest.raises(DemoError) as raised:
        export_space(world, None, space)
    names(raised.value, space, "empty")


def test_a_space_that_cannot_be_whole_is_not_begun(world, tmp_path):
    shutil.copytree(world / "artifacts/checkpoints/base", tmp_path / "base")
    own = world / "artifacts/checkpoints/base"
    with pytest.raises(DemoError) as error:
        export_space(world, ["base", str(tmp_path / "base")], tmp_path / "space")
    names(error.value, "base", own, tmp_path / "base")
    with pytest.raises(PlayError) as raised:
        export_space(tmp_path, [str(tmp_path / "base")], tmp_path / "space")
    names(raised.value, "artifacts/asr")
    assert not (tmp_path / "space").exists()


def test_a_space_installs_what_its_page_imports():
    """Of what is left out, nothing may be imported when the modules of the page are."""
    distributions = importlib.metadata.packages_distributions()
    names = {
        name.split(".")[0]
        for file in _closure(ROOT / "alignslm/demo/page.py")
        for node in ast.parse(file.read_text()).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [getattr(node, "module", None) or "alignslm"]
        )
    }
    needed = {found.lower() for name in names for found in distributions.get(name, ())}
    assert {"torch", "transformers", "soundfile"} <= needed
    assert needed & LEFT_OUT == set()
    assert {re.split(r"[^\w.-]", line)[0] for line in requirements()} & LEFT_OUT == set()

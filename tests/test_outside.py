"""Folders outside the repository: what their listings hold, what is read again, and what is said of a change."""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from alignslm import outside
from alignslm.cli.overview import changed_stages
from alignslm.config.experiment import CONFIG_GROUPS, Experiment
from alignslm.config.loading import load_experiment
from alignslm.config.presets import preview
from alignslm.pipeline import read_stages
from tests.messages import names
from tests.micro import PARAMS, ROOT, WARM, changed, copy_project, edit, make_repository, run, stages_of

FILES = {"a.wav": b"one", "texts/b.txt": b"two", "texts/deep/c.txt": b""}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ALIGNSLM_CACHE", str(folder))
    return folder


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def hashed(folder: Path) -> outside.Files:
    """Hash every file, whatever was known of it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): [len(data := path.read_bytes()), hashlib.sha256(data).hexdigest()]
        for path in files
    }


def settle(folder: Path) -> None:
    """Let this machine's cache believe that the files are old: those of the last two seconds are hashed every time."""
    place = next((Path(os.environ["ALIGNSLM_CACHE"]) / "listings").glob("*.json"))
    known = outside.listed(folder)
    states = {name: [*state, known[name][1]] for name, state in outside._states(folder)}
    place.write_text(json.dumps(states))
    time.sleep(0.02)  # a tick of the clock that files are dated by


def test_a_listing_has_size_and_hash_of_every_file_by_its_name(tmp_path):
    assert outside.listed(fill(tmp_path / "one", FILES)) == {
        "a.wav": [3, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"],
        "texts/b.txt": [3, "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"],
        "texts/deep/c.txt": [0, hashlib.sha256(b"").hexdigest()],
    }
    assert outside.listed(tmp_path / "one") == outside.listed(fill(tmp_path / "elsewhere/two", FILES))
    assert outside.listed(tmp_path / "one/a.wav") == {"": hashed(tmp_path / "one")["a.wav"]}


def test_links_are_followed_but_not_in_circles_and_hidden_files_are_left_out(tmp_path):
    folder, away = fill(tmp_path / "one", FILES), fill(tmp_path / "away", {"d.txt": b"three"})
    fill(folder, {".cache/lock": b"", ".hidden": b""})
    (folder / "linked").symlink_to(away)
    (folder / "copy.wav").symlink_to("a.wav")
    (folder / "texts/up").symlink_to(folder)
    (folder / "nothing").symlink_to(tmp_path / "absent")
    expected = {**hashed(fill(tmp_path / "plain", FILES)), "linked/d.txt": hashed(away)["d.txt"]}
    assert outside.listed(folder) == {**expected, "copy.wav": expected["a.wav"]}


@pytest.mark.parametrize(
    ("changed", "read"),
    [
        ({}, []),
        ({"a.wav": b"ONE"}, ["a.wav"]),  # of equal size, and below of equal time
        ({"a.wav": b"one"}, ["a.wav"]),
        ({"new.txt": b"x"}, ["new.txt"]),
    ],
)
def test_only_what_may_have_changed_is_read_again(tmp_path, monkeypatch, changed, read):
    folder = fill(tmp_path / "one", FILES)
    outside.listed(folder)
    settle(folder)
    times = folder.joinpath("a.wav").stat()
    fill(folder, changed)
    os.utime(folder / "a.wav", ns=(times.st_atime_ns, times.st_mtime_ns)) if "a.wav" in changed else None
    opened, hash_of = [], outside.file_sha256
    monkeypatch.setattr(outside, "file_sha256", lambda path: opened.append(path.name) or hash_of(path))
    assert outside.listed(folder) == hashed(folder)
    assert opened == read


def test_a_file_written_while_it_was_read_is_read_again(tmp_path, monkeypatch):
    """Its time may be that of the last look, within one tick of the clock."""
    folder, opened, hash_of = fill(tmp_path / "one", FILES), [], outside.file_sha256
    outside.listed(folder)
    monkeypatch.setattr(outside, "file_sha256", lambda path: opened.append(path.name) or hash_of(path))
    outside.listed(folder)
    assert sorted(opened) == ["a.wav", "b.txt", "c.txt"]


NAMES = st.sampled_from(["a", "b/c", "b/d", "e/f/g", "ü \n"])
EDITS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=2)), max_size=8)


@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(EDITS, min_size=2, max_size=4))
def test_after_any_edits_a_listing_is_that_of_a_full_read_and_a_change_is_counted(tmp_path_factory, rounds):
    folder = tmp_path_factory.mktemp("edited") / "speech"
    folder.mkdir()
    former: outside.Files = {}
    for edits in rounds:
        for name, content in edits:
            fill(folder, {name: content}) if content is not None else (folder / name).unlink(missing_ok=True)
        now = outside.listed(folder)
        assert now == hashed(folder)
        kinds = [
            "added" if name not in former else "removed" if name not in now else "changed"
            for name in {*former, *now}
            if former.get(name) != now.get(name)
        ]
        counts = [f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed") if kind in kinds]
        assert outside.difference(former, now).partition(" (")[0] == (f"files: {', '.join(counts)}" if kinds else "")
        former = now


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (FILES, ""),
        ({**FILES, "z": b""}, "files: 1 added (z)"),
        ({**FILES, "a.wav": b"1"}, "files: 1 changed (a.wav)"),
        ({"a.wav": b"one"}, "files: 2 removed (texts/b.txt, texts/deep/c.txt)"),
        (
            {"a.wav": b"1", "texts/b.txt": b"two", "x": b"", "y": b""},
            "files: 2 added, 1 removed, 1 changed (x, y, texts/deep/c.txt, ...)",
        ),
    ],
)
def test_a_change_is_said_in_counts_and_three_names(tmp_path, now, said):
    former = outside.listed(fill(tmp_path / "one", FILES))
    assert outside.difference(former, outside.listed(fill(tmp_path / "two", now))) == said


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder = fill(tmp_path / "one", FILES)

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(outside, "file_sha256", refuse)  # root, who may run tests, may read everything
    with pytest.raises(outside.OutsideError) as raised:
        outside.listed(fill(folder, {}))
    names(str(raised.value), str(folder), "Permission denied")


@pytest.fixture
def experiment(tmp_path) -> tuple[Path, dict[str, Path]]:
    """An experiment with a folder of speech, a local judge and one file for the predicted MOS, each outside it."""
    root, speech, judge = tmp_path / "experiment", fill(tmp_path / "speech", FILES), tmp_path / "judge"
    fill(judge, {"config.json": b"{}", "model.safetensors": b"old"})
    mos = fill(tmp_path, {"utmos.jit": b"net"}) / "utmos.jit"
    copy_project(root)
    prompts = {"prompts": {**PARAMS["prompts"], "cut_at": "time"}}
    chosen = {"corpus": "folder", "judge": "mistral-7b", "mos": "utmos", "benchmarks": {"cloze": "corpus-cloze"}}
    edit(root / "params.yaml", {**chosen, **prompts})
    for choice, path in {"judge/mistral-7b": judge, "mos/utmos": mos}.items():
        edit(root / f"experiments/{choice}.yaml", {"weights": {"kind": "folder", "path": str(path)}})
    return root, {"speech": speech, "judge": judge, "mos": mos}


def look(root: Path, *, new: bool = True) -> outside.Compared:
    return outside.compare(load_experiment(root), root, new=new)


def test_every_folder_and_file_of_every_config_is_compared(experiment, monkeypatch):
    root, places = experiment
    monkeypatch.setenv("SPEECH_FOLDER", str(places["speech"]))
    known = root / "artifacts/outside"
    assert look(root, new=False).listings[Path("corpus/folder.json")] == {}
    outside.write(look(root), known)
    assert json.loads((known / "corpus/folder.json").read_text()) == {"parts.folder.source": hashed(places["speech"])}
    assert json.loads((known / "mos/utmos.json").read_text())["weights"][""][0] == 3
    fill(places["judge"], {"model.safetensors": b"new"})
    places["mos"].write_bytes(b"longer")
    for new in (True, False):
        assert look(root, new=new).changes == [
            f"experiments/mos/utmos.yaml: weights ({places['mos']}): files: 1 changed",
            f"experiments/judge/mistral-7b.yaml: weights ({places['judge']}): files: 1 changed (model.safetensors)",
        ]
    assert look(root).stale == {"artifacts/outside/mos/utmos.json", "artifacts/outside/judge/mistral-7b.json"}
    outside.write(look(root), known)
    assert (look(root).changes, look(root).stale) == ([], set())
    edit(root / "params.yaml", {"mos": "dnsmos"})
    outside.write(look(root), known)
    assert sorted(file.name for file in (known / "mos").iterdir()) == ["dnsmos.json"]


def test_a_folder_that_is_not_here_keeps_its_listing_and_one_that_never_was_is_told(experiment, monkeypatch):
    root, places = experiment
    monkeypatch.delenv("SPEECH_FOLDER", raising=False)
    names(look(root).absent, "experiments/corpus/folder.yaml", "parts.folder.source", "$SPEECH_FOLDER")
    monkeypatch.setenv("SPEECH_FOLDER", str(places["speech"]))
    outside.write(look(root), root / "artifacts/outside")
    before = look(root).listings
    shutil.rmtree(places["speech"])
    found = look(root)
    assert (found.listings, found.absent) == (before, [])
    names(found.changes, "experiments/corpus/folder.yaml", "not on this machine", "3 files")


MAKERS = {
    "corpus": "corpus",
    "encoder": "encoder",
    "lm": "base",
    "vocoder": "vocoder",
    "asr": "asr",
    "mos": "mos",
    "judge": "judge",
    "benchmark": "benchmarks",
    "preferences": "imported_pairs",
}


def test_every_stage_that_reads_a_source_depends_on_its_listing():
    for key, kind in CONFIG_GROUPS.items():
        annotation = Experiment.model_fields[key].annotation
        named = "FolderSource" in TypeAdapter(annotation).json_schema().get("$defs", {})
        assert named == (kind in MAKERS), key
    for stage in read_stages(ROOT, params=preview("embedded-full", ROOT).text):
        script = stage.name.partition("@")[0]
        for file in stage.params:
            _, *kind, name = file.removesuffix(".yaml").split("/") if "/" in file else ("", "")
            if MAKERS.get("/".join(kind)) == script:
                assert f"artifacts/outside/{kind[0]}/{name}.json" in stage.deps


HEAD = "file_name,subset,speaker_id,text\n"


def speak(folder: Path, number: int) -> str:
    """Write a second of noise; return its line of metadata.csv."""
    noise = np.random.default_rng(number).normal(0, 0.1, 16000).astype(np.float32)
    soundfile.write(folder / f"{number}.wav", noise, 16000)
    subset = ("train", "train", "train", "valid", "test")[number % 5]
    return f"{number}.wav,{subset},anna,text number {number} of a list\n"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Path]:
    """An experiment on a folder of recordings beside it, run up to the units."""
    place = tmp_path_factory.mktemp("outside")
    root, speech = place / "experiment", place / "speech"
    make_repository(root)
    speech.mkdir()
    (speech / "metadata.csv").write_text(HEAD + "".join(speak(speech, number) for number in range(30)))
    part = (root / "experiments/corpus/folder.yaml").read_text().replace("$SPEECH_FOLDER", str(speech))
    (root / "experiments/corpus/folder.yaml").write_text(part.replace("speakers: error ", "speakers: allow "))
    edit(root / "experiments/encoder/mfcc-kmeans.yaml", {"num_units": 8, "fit_utterances": 10})
    prompts = {"prompts": {**PARAMS["prompts"], "cut_at": "time"}}
    edit(root / "params.yaml", {"corpus": "folder", "benchmarks": {"cloze": "corpus-cloze"}} | prompts)
    assert {*stages_of(units(root))} == {"own_code@encoder/mfcc-kmeans", "corpus", "encoder", "units"}
    return root, speech


def units(root: Path, *options: str, fails: bool = False) -> str:
    return run(root, *WARM, "dvc", "repro", "units", *options, fails=fails)


@pytest.mark.long
def test_changed_recordings_rerun_what_reads_them_and_nothing_else(recorded):
    root, speech = recorded
    assert stages_of(units(root)) == []
    (speech / "1.wav").touch()
    assert stages_of(units(root)) == []
    listing = (root / "artifacts/outside/corpus/folder.json").read_bytes()
    assert str(speech).encode() not in listing
    assert json.loads(listing) == {"parts.folder.source": hashed(speech)}
    assert (root / "artifacts/outside/lm/llama-tiny.json").read_text() == "{}"
    with (speech / "metadata.csv").open("a") as stream:
        stream.write(speak(speech, 30))
    told = ("experiments/corpus/folder.yaml: parts.folder.source", "1 added", "1 changed", "30.wav", "metadata.csv")
    for command in ("check", "plan"):
        names(run(root, sys.executable, "-m", "alignslm", command, check=False), *told)
    said = units(root)
    names(said, *told)
    assert stages_of(said) == ["corpus", "encoder", "units"]
    (speech / "README").write_text("About these recordings.\n")  # read by nobody: the corpus is the same afterwards
    said = units(root)
    names(said, "1 added", "README")
    assert stages_of(said) == ["corpus"]
    assert stages_of(units(root)) == []
    assert {"check", "corpus", "units"}.isdisjoint(changed_stages(root))  # what `alignslm stages` marks


@pytest.mark.long
def test_a_clone_without_the_folder_uses_what_was_read_of_it(recorded, tmp_path):
    root, speech = recorded
    run(root, "dvc", "remote", "add", "--force", "--default", "storage", str(tmp_path / "store"))
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-q", "-m", "made")
    run(root, "dvc", "push")
    speech.rename(tmp_path / "away")
    missing = ("experiments/corpus/folder.yaml", "parts.folder.source", str(speech))
    try:
        for pull in (("dvc", "pull", "--allow-missing"), ()):
            clone = tmp_path / f"clone-{len(pull)}"
            run(tmp_path, "git", "clone", "-q", str(root), str(clone))
            if pull:
                run(clone, *pull)
                assert "check" not in changed(clone)
            said = units(clone, *(() if pull else ("--pull", "--allow-missing")))
            names(said, *missing, "not on this machine")
            assert stages_of(said) == []
            assert (clone / "dvc.lock").read_text() == (root / "dvc.lock").read_text()
        shutil.rmtree(tmp_path / "store")
        shutil.rmtree(clone / ".dvc/cache")
        shutil.rmtree(clone / "artifacts")
        names(units(clone, fails=True), *missing, "does not exist")
    finally:
        (tmp_path / "away").rename(speech)

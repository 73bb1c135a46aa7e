"""Preferences that others made: read as published, checked row by row, and trained on through the real stages."""

import contextlib
import io
import json
import re
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import polars as pl
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

import stages.imported_pairs
import stages.train
from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.cli import app
from alignslm.config.experiment import Params
from alignslm.config.loading import load_experiment
from alignslm.config.preferences import PreferencesConfig
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.encoder.rows import encode_utterances
from alignslm.lm.checkpoint import load_lm, save_lm
from alignslm.pipeline import read_stages, sources
from alignslm.preferences.files import fetch, find_slices
from alignslm.preferences.pairing import REASONS, PreferenceError, make_pairs
from alignslm.preferences.reading import SCHEMA, read_slice
from alignslm.units import UnitVocabulary
from tests.listening_world import NOUNS, RATE_HZ, say
from tests.messages import names
from tests.micro import copy_project, edit, list_outside
from tests.tiny_hub import commit_of, point_hub_at, serving

NUM_UNITS = 40
WORDS = {"prompt": "a {}", "chosen": "the dog ran", "rejected": "tall mud {}"}
SIDES = tuple(WORDS)


@pytest.fixture(scope="module")
def spoken():
    """Rows of clips: prompt, chosen and rejected of each noun, spoken by espeak-ng."""
    return [{side: say(text.format(noun)) for side, text in WORDS.items()} for noun in NOUNS]


@pytest.fixture(scope="module")
def project(spoken, tmp_path_factory):
    """The repository's own files with a fitted encoder and a tiny base model of its units."""
    root = tmp_path_factory.mktemp("preferences") / "project"
    copy_project(root)
    edit(root / "experiments/encoder/mfcc-kmeans.yaml", {"num_units": NUM_UNITS, "fit_utterances": 8})
    edit(root / "experiments/trainer/dpo-nll.yaml", {"max_steps": 2, "batch_size": 4, "min_pairs": 2, "num_evals": 1})
    edit(root / "experiments/execution.yaml", {"shard_size": 3})
    config = load_experiment(root).encoder
    prepare_encoder(config, [row["prompt"] for row in spoken], root / "artifacts/encoder")
    contract = load_encoder(config, root / "artifacts/encoder", device="cpu").contract
    shape = LlamaConfig(
        vocab_size=NUM_UNITS + 3, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    vocabulary = UnitVocabulary(num_units=NUM_UNITS, offset=3, bos_id=1, eos_id=2, pad_id=0)
    save_lm(LlamaForCausalLM(shape), vocabulary, contract, root / "artifacts/checkpoints/base")
    (root / "artifacts/checked.txt").write_text("params.yaml is valid\n")
    return root


@pytest.fixture
def root(project, monkeypatch):
    """The project as the current folder; params.yaml and imported choices are taken back afterwards."""
    before = (project / "params.yaml").read_text()
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "200")
    yield Path()
    (project / "params.yaml").write_text(before)
    for path in (project / "experiments/preferences").glob("*.yaml"):
        path.unlink()


@pytest.fixture
def encoder(root):
    return load_encoder(load_experiment(root).encoder, root / "artifacts/encoder", device="cpu")


def slamkit_rows(count=8):
    """Rows as slamkit's extraction writes them, units and durations beside the paths they came from."""
    rng = np.random.default_rng(0)
    sides = [
        {side: [int(u) for u in np.cumsum(rng.integers(1, NUM_UNITS, 6)) % NUM_UNITS] for side in SIDES}
        for _ in range(count)
    ]
    for row in sides:
        for side in SIDES[1:]:
            row[side] = [u for u in row[side] if u != row["prompt"][-1]]
    clean = [
        {side: [u for n, u in enumerate(units) if not n or u != units[n - 1]] for side, units in row.items()}
        for row in sides
    ]
    return [
        {f"{side}_path": f"/corpus/{n}_{side}.wav" for side in SIDES}
        | {"prompt_text": "the", "chosen_text": "cat"}
        | {side: {"units": row[side], "duration": [1] * len(row[side])} for side in SIDES}
        for n, row in enumerate(clean)
    ]


def write_bytes(path, content):
    path.write_bytes(content)
    return path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" if not isinstance(row, str) else row + "\n" for row in rows))
    return path


def run(*words):
    return CliRunner().invoke(app, ["import-preferences", *map(str, words)])


def choice(root, name):
    return YAML(typ="safe").load((root / f"experiments/preferences/{name}.yaml").read_text())


def make(name):
    """Run the two stages; return the pairs."""
    list_outside(Path())
    with contextlib.redirect_stdout(io.StringIO()):
        stages.imported_pairs.main(name)
    return tables.read(tables.PAIRS, Path(f"artifacts/pairs/{name}.parquet"))


# --- units ---


def test_units_as_slamkit_writes_them_are_trained_on_without_sampling(root, encoder, tmp_path):
    rows = slamkit_rows(24)
    result = run(
        write_lines(tmp_path / "pairs.jsonl", rows),
        "--name",
        "mine",
        "--encoder",
        "mfcc-kmeans",
        "--valid-fraction",
        0.3,
    )
    assert result.exit_code == 0, result.output
    told = re.match(r"24 rows: (\d+) training and (\d+) validation pairs\n", result.stdout)
    assert (
        "imported_preferences.mine: added mine\n"
        "checkpoints.mine: added {init_from: base, train_on: pairs/mine, trainer: dpo-nll, warmup_steps: 0}\n"
        "systems.mine: added {source: checkpoints/mine}" in result.stdout
    )
    assert choice(root, "mine")["units"]["codebook_sha256"] == encoder.contract.codebook_sha256

    pairs = make("mine")
    assert dict(pairs["split"].value_counts().iter_rows()) == {"train": int(told[1]), "valid": int(told[2])}
    assert {tuple(tuple(row[f"{side}_units"]) for side in SIDES) for row in pairs.to_dicts()} == {
        tuple(tuple(row[side]["units"]) for side in SIDES) for row in rows
    }
    assert pairs.select("chosen_utility", "rejected_utility", "margin").null_count().row(0) == (24, 24, 24)
    assert set(pairs["chosen_finish_reason"]) == set(pairs["rejected_finish_reason"]) == {"eos"}
    assert tables.contract_of(tables.PAIRS, root / "artifacts/pairs/mine.parquet") == encoder.contract

    with contextlib.redirect_stdout(io.StringIO()):
        stages.train.main("mine")
    made, base = (load_lm(root / "artifacts/checkpoints" / name, device="cpu") for name in ("mine", "base"))
    assert made.contract == base.contract
    assert made.model_id != base.model_id
    assert json.loads((root / "artifacts/training_logs/mine.json").read_text())["steps"] == 2


def test_the_graph_trains_on_them_from_the_base_model_and_evaluates(root, tmp_path):
    run(write_lines(tmp_path / "pairs.jsonl", slamkit_rows(24)), "--name", "mine", "--encoder", "mfcc-kmeans")
    graph = read_stages(root)
    named = {stage.name: stage for stage in graph}
    behind, queue = set(), [named["eval@mine"]]
    while queue:
        stage = queue.pop()
        behind.add(stage.name)
        queue += [other for other in sources(stage, graph) if other.name not in behind]
    assert {"imported_pairs@mine", "train@mine", "base", "samples@mine"} <= behind
    assert not {name for name in behind if name.split("@")[0] in {"continuations", "scores", "pairs", "checkpoint"}}


@pytest.mark.parametrize(
    "written",
    [
        lambda units: units,
        lambda units: {"units": units},
        lambda units: "".join(f"<Un{u}>" for u in units),
        lambda units: {"audio_repr": "".join(f"<Un{u}>" for u in units)},
        lambda units: " ".join(map(str, units)),
        str,
    ],
    ids=["list", "slamkit", "text", "tokens", "numbers", "brackets"],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_units_may_be_written_in_six_ways_in_two_kinds_of_file(root, encoder, tmp_path, written, suffix):
    rows = [{side: written(row[side]["units"]) for side in SIDES} for row in slamkit_rows(5)]
    path = tmp_path / f"train{suffix}"
    write_lines(path, rows) if suffix == ".jsonl" else pl.DataFrame(rows).write_parquet(path, row_group_size=2)
    config = units_choice(tmp_path, files={"train": [path.name], "valid": []})
    read = [
        pl.concat(
            read_slice(config, place, num_units=NUM_UNITS, encoder=None)
            for place in find_slices(config, tmp_path, rows=rows)[0]
        )
        for rows in (1, 3, 100)
    ]
    assert read[0].equals(read[1])
    assert read[0].equals(read[2])
    assert read[0].select(SIDES).rows() == [tuple(row[side]["units"] for side in SIDES) for row in slamkit_rows(5)]
    assert read[0]["problem"].null_count() == 5


TRAINED_ON = {
    "num_units": NUM_UNITS, "sample_rate_hz": 16000, "frame_rate_hz": 25.0, "layer": None, "deduplicated": True,
    "revision": None, "codebook_sha256": None, "codebook_file_sha256": None,
}  # fmt: skip


def units_choice(folder, **changes):
    content = {
        "kind": "units",
        "source": {"kind": "folder", "path": str(folder)},
        "files": {"train": ["*.jsonl"], "valid": []},
        "valid_fraction": 0.5,
        "overlapping_prompts": "error",
        "columns": {side: side for side in SIDES},
        "append_eos": True,
        "strip_prompt": False,
        "max_units": None,
        "units": TRAINED_ON,
        "repeats": "error",
    }
    if changes.get("files", {}).get("valid"):
        content["valid_fraction"] = None
    return TypeAdapter(PreferencesConfig).validate_python({**content, **changes})


def test_all_faults_of_all_rows_are_listed_and_nothing_is_written(root, tmp_path):
    good = slamkit_rows(1)[0]
    lines = [
        good,
        {**good, "chosen": [1, 2, NUM_UNITS]},
        {**good, "chosen": [1, -2]},
        {**good, "rejected": [1, 1, 2]},
        {**good, "prompt": []},
        {**good, "prompt": ["1"], "chosen": "hello"},
        {"prompt": [1], "chosen": [2]},
        "[1]",
        "{oops",
    ]
    before = (root / "params.yaml").read_text()
    result = run(write_lines(tmp_path / "x.jsonl", lines), "--name", "bad", "--encoder", "mfcc-kmeans")
    assert (result.exit_code, result.stdout) == (1, "")
    expected = (
        ("8 problems", "9 rows"),
        ("chosen", f"[0, {NUM_UNITS})", "(2): x.jsonl:2, x.jsonl:3"),
        ("JSON", "property name", "(1): x.jsonl:9"),
        ("JSON object", "(1): x.jsonl:8"),
        ("key rejected", "(1): x.jsonl:7"),
        ("prompt: ", "{units: [...]}", "chosen: ", "<Un...>", "(1): x.jsonl:6"),
        ("prompt: ", "units", "(1): x.jsonl:5"),
        ("rejected: ", "repeats: dedup", "(1): x.jsonl:4"),
        ("columns", "kind", "experiments/preferences"),
    )
    for line, facts in zip(result.stderr.replace("\n\n", "\n").splitlines(), expected, strict=True):
        names(line, *facts)
    assert (root / "params.yaml").read_text() == before
    assert not (root / "experiments/preferences/bad.yaml").exists()


def test_units_of_nobody_knows_whom_are_refused(root, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", slamkit_rows(24))
    result = run(path, "--name", "x")
    assert result.exit_code == 1
    names(result.stderr, "units", "encoder")
    result = run(path, "--name", "x", "--encoder", "mhubert-25hz-km500")
    assert result.exit_code == 1
    names(result.stderr, "units.num_units", "500", "mfcc-kmeans", NUM_UNITS)
    assert not (root / "experiments/preferences/x.yaml").exists()


def test_another_codebook_is_refused_by_the_stage(root, tmp_path, capsys):
    run(write_lines(tmp_path / "x.jsonl", slamkit_rows(24)), "--name", "mine", "--encoder", "mfcc-kmeans")
    path = root / "experiments/preferences/mine.yaml"
    content = choice(root, "mine")
    content["units"]["codebook_sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    list_outside(Path())
    with pytest.raises(SystemExit):
        stages.imported_pairs.main("mine")
    said = capsys.readouterr().err.replace("\n", " ")
    names(said, "mfcc-kmeans", "mfcc13x3-")
    assert f"(codebook_sha256: '{'0' * 64}' in the config, '" in said


def test_files_that_change_after_the_import_stop_the_stage(root, tmp_path, capsys):
    path = write_lines(tmp_path / "x.jsonl", slamkit_rows(24))
    run(path, "--name", "mine", "--encoder", "mfcc-kmeans")
    write_lines(path, slamkit_rows(23))
    list_outside(Path())
    with pytest.raises(SystemExit):
        stages.imported_pairs.main("mine")
    assert "but the configuration promises" in capsys.readouterr().err


# --- speech ---


def clip(waveform, rate_hz=RATE_HZ):
    return {"bytes": encode_flac(waveform, rate_hz), "path": "x.flac"}


def spoken_swag(folder, spoken):
    """Parquet shaped like SpokenSwag: audio columns, texts beside them, files named by split."""
    rows = [
        {**{side: clip(row[side]) for side in SIDES}, "prompt_text": "a", "chosen_text": "b", "rejected_text": "c"}
        for row in spoken
    ]
    (folder / "data").mkdir(parents=True)
    pl.DataFrame(rows[:6]).write_parquet(folder / "data/train-00000-of-00001.parquet", row_group_size=2)
    pl.DataFrame(rows[6:]).write_parquet(folder / "data/validation-00000-of-00001.parquet")
    return folder


def units_of(encoder, waveforms):
    rows = pl.DataFrame(
        {"utterance_id": list(map(str, range(len(waveforms)))), "split": "x", "audio": [clip(w) for w in waveforms]}
    )
    return encode_utterances(rows, encoder)["units"].to_list()


def expected(encoder, row):
    prompt, *sides = units_of(encoder, [row[side] for side in SIDES])
    return [prompt, *(side[1:] if side[0] == prompt[-1] else side for side in sides)]


def test_audio_columns_become_the_units_that_the_encoder_gives(root, encoder, spoken, tmp_path):
    result = run(spoken_swag(tmp_path / "swag", spoken), "--name", "swag", "--no-append-eos")
    assert result.exit_code == 0, result.output
    names(result.stdout, "8 rows", "16000 Hz")
    made = choice(root, "swag")
    assert (made["kind"], made["valid_fraction"], made["append_eos"]) == ("spoken", None, False)
    assert made["files"] == {
        "train": ["data/train-00000-of-00001.parquet"],
        "valid": ["data/validation-00000-of-00001.parquet"],
    }
    pairs = make("swag")
    assert set(pairs["chosen_finish_reason"]) == {"length"}
    assert sorted(pairs.select([f"{side}_units" for side in SIDES]).rows()) == sorted(
        tuple(expected(encoder, row)) for row in spoken
    )
    assert dict(pairs["split"].value_counts().iter_rows()) == {"train": 6, "valid": 2}


def test_jsonl_that_names_sound_files_gives_the_same(root, encoder, spoken, tmp_path):
    lines = []
    for number, row in enumerate(spoken):
        for side in SIDES:
            soundfile.write(tmp_path / f"{number}-{side}.wav", row[side], RATE_HZ, subtype="PCM_16")
        lines.append({f"{side}_path": f"{number}-{side}.wav" for side in SIDES} | {"prompt_text": "a"})
    result = run(write_lines(tmp_path / "all.jsonl", lines), "--name", "files", "--valid-fraction", 0.5)
    assert result.exit_code == 0, result.output
    assert sorted(make("files").select([f"{side}_units" for side in SIDES]).rows()) == sorted(
        tuple(expected(encoder, row)) for row in spoken
    )
    account = json.loads((root / "artifacts/pair_counts/files.json").read_text())
    (tmp_path / "0-prompt.wav").write_bytes((tmp_path / "1-prompt.wav").read_bytes())
    assert f"sha256:{choice(root, 'files')['source']['sha256']}" == account["source"]
    with pytest.raises(ValueError, match="but the configuration promises"):  # the sound counts, not only the list
        fetch(load_experiment(root).imported_preferences["files"])


def test_a_dataset_of_the_hub_is_pinned_to_its_commit(root, spoken, tmp_path, monkeypatch):
    folder = spoken_swag(tmp_path / "swag", spoken)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.parquet")}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving() as served:
        point_hub_at(served.url, monkeypatch)
        served.repos["someone/swag"] = files
        result = run("someone/swag", "--name", "swag", "--revision", "main")
    assert result.exit_code == 0, result.output
    assert choice(root, "swag")["source"] == {"kind": "hub", "repo": "someone/swag", "revision": commit_of(files)}


def test_faulty_sound_is_listed_by_file_and_row(root, spoken, tmp_path):
    row = spoken[0]
    rows = [
        {side: clip(row[side]) for side in SIDES},
        {
            "prompt": clip(row["prompt"]),
            "chosen": clip(row["chosen"], 8000),
            "rejected": {"bytes": b"words", "path": "x"},
        },
        {"prompt": clip(row["prompt"][:0]), "chosen": {"bytes": None, "path": None}, "rejected": clip(row["rejected"])},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "p.parquet")
    result = run(tmp_path / "p.parquet", "--name", "x")
    expected = (
        ("2 problems", "3 rows"),
        ("chosen: ", "8000 Hz", "16000 Hz", "rejected: unreadable audio", "(1): p.parquet row 1"),
        ("prompt: ", "0 samples", "chosen: ", "(1): p.parquet row 2"),
    )
    for line, facts in zip(result.stderr.splitlines()[:3], expected, strict=True):
        names(line, *facts)


@pytest.mark.parametrize(
    ("make_source", "message"),
    [
        (
            lambda folder: folder / "absent",
            ("owner/name",),
        ),
        (lambda folder: folder, ("*.jsonl", "*.parquet")),
        (
            lambda folder: write_lines(folder / "a.jsonl", [{"question": 1}]),
            ("prompt, chosen", "rejected", "question", "--columns a,b,c"),
        ),
        (
            lambda folder: write_bytes(folder / "a.jsonl", b'{"prompt": [1]\n'),
            ("','", "a.jsonl", "JSON"),
        ),
        (
            lambda folder: write_bytes(folder / "a.jsonl", b'{"prompt": "\xe9"}'),
            ("a.jsonl", "JSON", "UTF-8"),
        ),
        (lambda folder: write_bytes(folder / "a.jsonl", b""), ("/a.jsonl", "row")),
        (lambda folder: write_bytes(folder / "a.parquet", b"PAR"), ("a.parquet", "unreadable")),
        (
            lambda folder: write_lines(folder / "valid.jsonl", slamkit_rows(1)).parent,
            ("valid.jsonl", "--train"),
        ),
    ],
    ids=["absent", "empty", "columns", "half a line", "bytes", "no line", "half a file", "split"],
)
def test_sources_that_hold_no_preferences_say_what_is_missing(root, tmp_path, make_source, message):
    result = run(make_source(tmp_path), "--name", "x", "--encoder", "mfcc-kmeans")
    assert result.exit_code == 1
    names(result.stderr, *message)


def test_a_column_of_text_is_no_name_of_a_sound_file(root, tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [dict.fromkeys(SIDES, "a long story " * 40)])
    result = run(file, "--name", "x", "--columns", "prompt,chosen,rejected")
    assert result.stderr == "the first row's chosen side is neither units nor audio (no such audio file)\n"


def test_text_in_the_columns_that_are_looked_for_is_shown(root, tmp_path):
    result = run(write_lines(tmp_path / "a.jsonl", [dict.fromkeys(SIDES, "the old fox")]), "--name", "x")
    names(result.stderr, "'the old fox'", "units", "audio", "--columns")
    assert "no columns" not in result.stderr


# --- prompts inside chosen and rejected ---


def repeating_rows(count=12):
    """Rows of numbers as text whose sides begin with the prompt, and the same rows without it."""
    bare = [{side: row[side]["units"] for side in SIDES} for row in slamkit_rows(count)]
    whole = [{side: [*row["prompt"], *row[side]] if side != "prompt" else row[side] for side in SIDES} for row in bare]
    whole[3]["chosen"].insert(len(bare[3]["prompt"]), bare[3]["prompt"][-1])  # speech that goes on with the unit
    return bare, [{side: " ".join(map(str, units)) for side, units in row.items()} for row in whole]


def test_sides_that_repeat_the_prompt_are_told_and_the_cure_trains_on_each_unit_once(root, tmp_path):
    bare, rows = repeating_rows()
    file = write_lines(tmp_path / "x.jsonl", rows)
    result = run(file, "--name", "again", "--encoder", "mfcc-kmeans")
    assert result.exit_code == 1
    names(result.stderr, "12 rows", "prompt", "--strip-prompt", "strip_prompt: true", "x.jsonl:1")
    assert not (root / "experiments/preferences/again.yaml").exists()
    result = run(file, "--name", "again", "--encoder", "mfcc-kmeans", "--strip-prompt", "--valid-fraction", 0.5)
    assert result.exit_code == 0, result.output
    assert choice(root, "again")["strip_prompt"] is True
    pairs = make("again").select([f"{side}_units" for side in SIDES])
    assert sorted(pairs.rows()) == sorted(tuple(row[side] for side in SIDES) for row in bare)


def test_strip_prompt_of_rows_that_do_not_repeat_it_is_told(root, tmp_path):
    file = write_lines(tmp_path / "x.jsonl", [repeating_rows()[1][0], slamkit_rows(1)[0]])
    result = run(file, "--name", "x", "--encoder", "mfcc-kmeans", "--strip-prompt")
    assert result.exit_code == 1
    names(result.stderr, "1 problem", "chosen", "rejected", "strip_prompt: true", "x.jsonl:2")


def test_a_side_that_alone_says_the_prompt_again_is_speech_like_any_other(root, tmp_path):
    config = units_choice(tmp_path)
    write_lines(tmp_path / "x.jsonl", [{"prompt": [1, 2], "chosen": [1, 2, 3], "rejected": [4]}])
    (place,), _ = find_slices(config, tmp_path, rows=9)
    read = read_slice(config, place, num_units=NUM_UNITS, encoder=None)
    assert read.select(*SIDES, "problem").row(0) == ([1, 2], [1, 2, 3], [4], None)


@pytest.mark.parametrize("subtype", ["FLAC", "VORBIS"])
def test_sound_that_repeats_the_prompt_is_told_and_cut_off_to_the_sample(root, encoder, spoken, tmp_path, subtype):
    def stored(waveform):
        stream = io.BytesIO()
        form, kind = ("FLAC", "PCM_16") if subtype == "FLAC" else ("OGG", "VORBIS")
        soundfile.write(stream, waveform, RATE_HZ, format=form, subtype=kind)
        return {"bytes": stream.getvalue(), "path": None}

    whole = [
        {side: stored(row[side] if side == "prompt" else np.concatenate([row["prompt"], row[side]])) for side in SIDES}
        for row in spoken
    ]
    pl.DataFrame(whole).write_parquet(tmp_path / "p.parquet")
    result = run(tmp_path / "p.parquet", "--name", "x")
    assert result.exit_code == 1
    names(result.stderr, "--strip-prompt", "p.parquet row 0")
    result = run(tmp_path / "p.parquet", "--name", "again", "--strip-prompt", "--valid-fraction", 0.5)
    assert result.exit_code == 0, result.output
    if subtype == "FLAC":
        pairs = make("again").select([f"{side}_units" for side in SIDES])
        assert sorted(pairs.rows()) == sorted(tuple(expected(encoder, row)) for row in spoken)


def test_only_files_inside_the_folder_are_read(root, spoken, tmp_path):
    (tmp_path / "data").mkdir()
    for place in (tmp_path, tmp_path / "data"):
        soundfile.write(place / "x.wav", spoken[0]["prompt"], RATE_HZ, subtype="PCM_16")
    (tmp_path / "data/link.wav").symlink_to(tmp_path / "x.wav")
    outside = ["../x.wav", str(tmp_path / "x.wav"), "link.wav", "a/../../x.wav"]
    rows = [{f"{side}_path": name if side == "chosen" else "x.wav" for side in SIDES} for name in ["x.wav", *outside]]
    result = run(write_lines(tmp_path / "data/a.jsonl", rows), "--name", "x")
    assert result.exit_code == 1
    names(result.stderr, "chosen", "outside", "(4): a.jsonl:2, a.jsonl:3, a.jsonl:4")
    cells = [{f"{side}_audio": {"bytes": None, "path": name} for side in SIDES} for name in ["x.wav"]]
    (tmp_path / "data/a.jsonl").unlink()
    pl.DataFrame(cells).cast(pl.Struct({"bytes": pl.Binary, "path": pl.String})).write_parquet(
        tmp_path / "data/a.parquet"
    )
    result = run(tmp_path / "data/a.parquet", "--name", "x")
    assert result.exit_code == 1
    names(result.stderr, "path", "bytes")


def test_a_file_that_validates_does_not_train(root, tmp_path):
    rows = slamkit_rows(8)
    write_lines(tmp_path / "some.jsonl", rows[:5])
    write_lines(tmp_path / "heldout.jsonl", rows[5:])
    result = run(tmp_path, "--name", "split", "--encoder", "mfcc-kmeans", "--valid", "held*")
    names(result.stdout, "8 rows", "5 training", "3 validation")
    assert choice(root, "split")["files"] == {"train": ["some.jsonl"], "valid": ["held*"]}


# --- pairs ---


def frame(rows):
    """Rows (split, prompt, chosen, rejected) as `read_slice` gives them."""
    return pl.DataFrame(
        [
            {"place": f"x:{n}", "split": split, **dict(zip(SIDES, map(list, units), strict=True)), "problem": None}
            for n, (split, *units) in enumerate(rows, 1)
        ],
        schema=dict(SCHEMA),
    )


FILES = {"train": ["t.jsonl"], "valid": ["v.jsonl"]}
ROWS = [
    ("train", (1, 2), (3, 4), (5,)),
    ("train", (1, 2), (2, 3, 4), (5,)),  # joined at the prompt's 2 it is the row above
    ("train", (1, 2), (7,), (7,)),
    ("train", (1, 2), (2,), (7,)),
    ("train", (3, 2), (1, 3, 1, 3, 1), (7,)),
    ("train", (8, 9), (1,), (2,)),
    ("valid", (8, 9), (3,), (4,)),
]


def test_every_row_is_a_pair_or_left_out_for_a_reason():
    config = units_choice("x", files=FILES, overlapping_prompts="exclude", max_units=6)
    pairs, account = make_pairs(frame(ROWS), config, source="here")
    assert account.model_dump() == {
        "source": "here",
        "rows": 7,
        "train_pairs": 1,
        "valid_pairs": 1,
        "left_out": dict.fromkeys(REASONS, 1),
        "joined": 2,
    }
    assert pairs.sort("split")["chosen_units"].to_list() == [[3, 4], [3]]
    tables.verify(pairs, tables.PAIRS, where="pairs")


def test_units_that_a_model_drew_are_kept_as_drawn():
    config = units_choice("x", files=FILES, repeats="keep", overlapping_prompts="exclude")
    pairs, account = make_pairs(frame(ROWS), config, source="here")
    assert account.joined == 0
    assert [2, 3, 4] in pairs["chosen_units"].to_list()


def test_a_prompt_that_trains_and_validates_is_refused_where_that_is_said():
    with pytest.raises(PreferenceError) as raised:
        make_pairs(frame(ROWS), units_choice("x", files=FILES), source="here")
    names(raised.value, "1 problem", "7 rows", "(1): x:6")


def test_without_a_validation_pair_nothing_is_trained():
    with pytest.raises(PreferenceError) as raised:
        make_pairs(frame(ROWS[:2]), units_choice("x", files=FILES), source="here")
    names(raised.value, "2 rows", "1 training", "0 validation", "duplicate pair")


units = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["train", "valid"]), units, units, units), min_size=1, max_size=12), st.randoms()
)
def test_books_close_splits_share_no_prompt_and_order_changes_nothing(rows, random):
    config = units_choice("x", files=FILES, overlapping_prompts="exclude", max_units=5)
    shuffled = random.sample(rows, len(rows))
    try:
        pairs, account = make_pairs(frame(rows), config, source="")
    except PreferenceError:
        with pytest.raises(PreferenceError):
            make_pairs(frame(shuffled), config, source="")
        return
    assert account.rows == len(rows) == account.train_pairs + account.valid_pairs + sum(account.left_out.values())
    split = {name: set(pairs.filter(split=name)["prompt_id"]) for name in ("train", "valid")}
    assert split["train"] & split["valid"] == set()
    assert make_pairs(frame(shuffled), config, source="")[0].equals(pairs)


# --- the choice ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imported_preferences": {"r1": "x"}}, ("imported_preferences.r1",)),
        ({"systems": {"swag": {"source": "checkpoints/swag"}}}, ("systems.swag.source", "'swag'", "base, r1")),
    ],
)
def test_names_are_told_apart_and_known(root, changes, message):
    params = load_experiment(root).params.model_dump()
    with pytest.raises(ValidationError) as raised:
        Params.model_validate({**params, **changes})
    names(raised.value, *message)


def test_a_round_may_start_from_imported_preferences(root):
    params = load_experiment(root).params.model_dump()
    params["imported_preferences"] = {"swag": "x"}
    swag = {"init_from": "base", "train_on": "pairs/swag", "trainer": "dpo", "warmup_steps": 3}
    params["checkpoints"] = {**params["checkpoints"], "swag": swag}
    params["preferences"]["r1"]["sampled_from"] = params["checkpoints"]["r1"]["init_from"] = "swag"
    found = Params.model_validate(params)
    assert found.rounds["r1"].init_from == "swag"
    assert "swag" not in found.aligned


def test_validation_pairs_come_from_one_place():
    with pytest.raises(ValidationError) as raised:
        units_choice("x", valid_fraction=None)
    names(raised.value, "files.valid", "valid_fraction")


def test_a_choice_is_not_written_over(root, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", slamkit_rows(24))
    run(path, "--name", "mine", "--encoder", "mfcc-kmeans")
    again = run(path, "--name", "mine", "--encoder", "mfcc-kmeans")
    names(again.stderr, "experiments/preferences/mine.yaml", "--name")

# ruff: noqa: E501 (a line of the plan is easier to compare on one line)
"""The dry run: what a plan says, against hand-worked figures and real models' shapes; all that is missing, at once."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config
from typer.testing import CliRunner

from alignslm.cli import app
from alignslm.cli.planning import judge_line
from alignslm.cli.terminal import format_bytes, format_count
from alignslm.config.models import Lora
from alignslm.config.sources import FolderSource, HubSource, UrlSource
from alignslm.plan.downloads import UnreachableError, asked, fetches_of
from alignslm.plan.memory import PUBLISHED, Shape, read_shape, shape_of
from alignslm.plan.workload import JudgeRequests, Workload
from tests.messages import names
from tests.sample_experiment import edit, write_experiment
from tests.tiny_hub import serving
from tests.tiny_librispeech import COUNTS, write_librispeech

CORPUS = """\
kind: recordings
sample_rate_hz: 16000
max_duration_s: 40
overlapping_speakers: error
exclude_ids: []
num_texts: 10
num_prompt_words: 4
content_sha256: null
parts:
  speech:
    kind: librispeech
    source: {kind: folder, path: $SPEECH}
    subsets: {train: [train-clean-100], valid: [dev-clean], dev: [], test: [test-clean]}
    max_utterances: {train: null, valid: null, dev: null, test: null}
    alignments: {kind: folder, path: $ALIGNED}
"""
LM = """\
kind: hf
weights: {kind: folder, path: $LM}
units: {num_units: 100, sample_rate_hz: 16000, frame_rate_hz: 25.0, layer: null, deduplicated: true, revision: null, codebook_sha256: null, codebook_file_sha256: null}
ids: {offset: 0, bos: null, eos: null, pad: 0}
dtype: float32
"""
GPT = """\
kind: openai
base_url: https://api.openai.com/v1
model: gpt-4o
api_key_env: PLAN_TEST_KEY
rubric: ten-words
answer_prefix: 'x'
decoding: {temperature: 1.0, max_tokens: 50, num_votes: 2, seed: 0}
max_tokens_field: max_tokens
budget: {requests: 100, tokens: 1000}
concurrency: 1
timeout_s: 1
max_attempts: 1
"""
DVC = """\
stages:
  corpus:
    outs:
      - artifacts/corpus
  rounds:
    foreach: ${preferences}
    do:
      outs:
        - artifacts/${key}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    for name in ("SPEECH", "ALIGNED", "LM", "PLAN_TEST_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def choose(root):
    """Turn the sample into one with recorded speech, a published model and a paid judge; `world` items stay out."""
    files = {"corpus/speech": CORPUS, "lm/published": LM, "judge/gpt": GPT}
    for name, text in files.items():
        (root / "experiments" / f"{name}.yaml").write_text(text)
    edit(
        root / "params.yaml",
        ("lm: llama\n", "lm: published\n"),
        ("heldout_judge: ngram", "heldout_judge: gpt"),
    )


def plan(*words):
    result = CliRunner().invoke(app, ["plan", *words])
    return result.exit_code, result.stdout.splitlines()


def row(lines, key):
    """Return the words of the line that begins with a key."""
    (found,) = (line.removeprefix(key).split() for line in lines if line.startswith(f"{key} "))
    return found


def test_the_embedded_experiment_needs_nothing(root):
    code, lines = plan("--offline")
    assert code == 0
    expected = (
        ("stages", "3", "3 will run"),
        ("corpus", "0.2 h"),
        ("prompts", "65", "0"),
        ("continuations", "550", "2 rounds", "80", "1.7 h"),
        ("judge", "story: 630"),
        ("heldout_judge", "ngram: 80"),
        ("disk", "peak", "free"),
        ("nothing", "download"),
        ("alignslm plan --probe", "hours"),
        ("nothing", "missing"),
    )
    for line, facts in zip(lines, expected, strict=True):
        names(line, *facts)


def test_everything_missing_is_told_at_once(root):
    choose(root)
    code, lines = plan("--offline")
    assert code == 1
    assert row(lines, "lm.weights") == ["$LM", "no", "unknown"]
    assert "unknown" in " ".join(row(lines, "memory, lm"))
    names(" ".join(row(lines, "memory, lm")), "architecture")
    for line, facts in zip(
        [line for line in lines if line.startswith("missing: ")],
        [
            ("experiments/lm/", "weights.path", "$LM", "variable"),
            ("experiments/judge/gpt.yaml", "rubric", "experiments/rubric/ten-words.txt"),
            ("experiments/judge/gpt.yaml", "PLAN_TEST_KEY", "gpt", "https://api.openai.com/v1"),
            ("heldout_judge", "160", "100", "budget.requests", "experiments/judge/gpt.yaml"),
        ],
        strict=True,
    ):
        names(line, *facts)


def test_what_is_provided_is_missing_no_more_and_is_counted(root, monkeypatch):
    choose(root)
    (root / "experiments" / "rubric").mkdir()
    (root / "experiments" / "rubric" / "ten-words.txt").write_text(
        "one two three four five six seven eight {prompt} {continuation}"
    )
    edit(root / "experiments/judge/gpt.yaml", ("requests: 100", "requests: 160"))
    tiny = OPTConfig(hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=102)
    tiny.save_pretrained(root / "lm")
    monkeypatch.setenv("LM", str(root / "lm"))
    monkeypatch.setenv("PLAN_TEST_KEY", "secret")
    (root / "artifacts" / "r1").mkdir(parents=True)
    code, lines = plan("--offline")
    assert code == 0
    assert row(lines, "lm.weights") == ["$LM", "no", "here"]
    # 4 s of prompt and 160 units at 1.5 frames each and 25 frames a second: 13.6 s, 36.72 words; ten of the rubric
    asked_of = " ".join(row(lines, "heldout_judge"))
    names(asked_of, "80", "160", format_count(160 * round(46.72 * 1.4)), format_count(160 * 50))
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 102
    adapter = 2 * (4 * 4 * (32 + 32) + 2 * 4 * (32 + 64))
    cache = 8 * 2 * 2 * (100 + 160) * 32
    held = " ".join(row(lines, "memory, lm"))
    names(held, format_bytes(4 * weights), "LoRA", format_bytes(16 * adapter), "8", format_bytes(4 * cache))
    names(" ".join(row(lines, "stages")), "3", "3 will run")  # files that no dvc.lock knows
    assert "secret" not in "\n".join(lines)


def test_a_preset_is_planned_and_params_are_left_alone(root):
    before = Path("params.yaml").read_bytes()
    code, lines = plan("--preset", "longer", "--offline")
    assert code == 0
    names(" ".join(row(lines, "continuations")), "825", "3 rounds", "80", "2.4 h")
    names(" ".join(row(lines, "stages")), "4", "4 will run")
    assert Path("params.yaml").read_bytes() == before


def test_a_corpus_without_its_subsets_or_alignments(root, monkeypatch, tmp_path):
    from ruamel.yaml import YAML

    from alignslm.config.corpora import Recordings
    from alignslm.config.loading import load_execution, load_experiment
    from alignslm.plan import plan_of

    speech = write_librispeech(tmp_path / "speech", {"train-clean-100": COUNTS["train-clean-100"]})
    monkeypatch.setenv("SPEECH", str(speech))
    monkeypatch.setenv("ALIGNED", str(tmp_path / "no"))
    corpus = Recordings.model_validate(YAML(typ="safe").load(CORPUS))
    experiment = load_experiment(root).model_copy(update={"corpus": corpus})
    made = plan_of(experiment, root, execution=load_execution(root), ask=False)
    for line, facts in zip(
        made.missing,
        [
            ("parts.speech.alignments.path", tmp_path / "no"),
            ("corpus.parts.speech", speech, "dev-clean, test-clean"),
        ],
        strict=True,
    ):
        names(line, *facts)
    sizes = {fetch.key: fetch.num_bytes for fetch in made.fetches}
    assert sizes["corpus.parts.speech.source"] == sum(f.stat().st_size for f in speech.rglob("*") if f.is_file())


def test_too_little_disk(root):
    edit(root / "params.yaml", ("  train: 50\n", "  train: 5000000\n"))
    edit(root / "experiments/corpus/world.yaml", ("train: 100", "train: 5000000"))
    code, lines = plan("--offline")
    assert code == 1
    hour = 3600 * 16000 * 2 * 0.6
    speech = (50_000_050 + 80) * 160 * 1.5 / 25 / 3600 * hour  # of the rounds and the evaluation
    corpus = (5_000_000 + 10 + 20) * 18 / 170 / 60 * hour
    checkpoints = 4 * (2 * (4 * 64 * 64 + 3 * 64 * 256) + 64 * 103) * (1 + 3)
    # all of them twice, since DVC copies to its cache; and once more the shards of the larger table, corpus or a round
    peak = 2 * (speech + corpus + checkpoints) + max(corpus, speech / 3)
    names(lines[-1], "disk", f"{peak / 1e9:.0f} GB")
    names(" ".join(row(lines, "disk")), format_bytes(round(peak)), format_bytes(round(2 * corpus)))
    (root / ".dvc/config").write_text("[cache]\n    type = reflink,hardlink,copy\n")  # one copy for both
    names(plan("--offline")[1][-1], "disk", f"{(peak - speech - corpus - checkpoints) / 1e9:.0f} GB")


def faults(root):
    from alignslm.plan.missing import workspace_faults

    return list(workspace_faults(root))


def test_a_folder_without_dvc_or_git(root):
    (root / ".git").rmdir()
    (told,) = faults(root)
    names(told, "git", root, "DVC", "git init", "dvc config core.no_scm true")
    assert plan("--offline")[0] == 1
    (root / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    assert faults(root) == []
    (root / ".dvc/config").unlink()
    (root / ".dvc").rmdir()
    (told,) = faults(root)
    names(told, "DVC", root, "git init && dvc init")


def test_a_cache_that_may_not_be_written(root):
    """As DVC writes it, and in the system's own folder, which refuses root as well."""
    (root / ".dvc/config").write_text("['remote \"s\"']\n    url = s3://b\n[cache]\n    dir = elsewhere\n")
    assert faults(root) == []
    (root / ".dvc/config.local").write_text("[cache]\n    dir = /sys/alignslm\n")
    (told,) = faults(root)
    names(told, "DVC", "cache", "/sys/alignslm", "dvc cache dir --local FOLDER")


def test_a_dvc_that_is_at_work_is_named(root):
    code = "from dvc.lock import Lock\nlock = Lock('.dvc/tmp/lock')\nlock.lock()\nprint('held', flush=True)\ninput()"
    (root / ".dvc/tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        (told,) = faults(root)
        holder.communicate("\n")
    names(told, "DVC", holder.pid, f"{sys.executable} -c")
    assert faults(root) == []


def test_faults_of_the_parameters_come_first(root):
    edit(root / "params.yaml", ("num_continuations: 5", "num_continuations: 1"))
    result = CliRunner().invoke(app, ["plan"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    names(line, "params.yaml:25: sampling.num_continuations", "2", "1")


def test_planning_imports_nothing_heavy(root):
    code = (
        "import sys; from alignslm.cli import app\n"
        "try: app(['plan', '--offline'])\n"
        "finally: print([n for n in ('torch', 'transformers', 'dvc', 'polars', 'openai') if n in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (result.stderr, result.returncode) == ("[]\n", 0)


# --- the Hub's answers ---


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with serving() as served:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        yield served


def source(repo, revision="main"):
    return HubSource(kind="hub", repo=repo, revision=revision)


def test_the_hub_tells_sizes_and_one_format_of_weights_counts(hub):
    hub.repos["lab/both"] = {"config.json": b"{}", "model.safetensors": b"x" * 70, "pytorch_model.bin": b"x" * 90}
    hub.repos["lab/old"] = {"config.json": b"{}", "pytorch_model.bin": b"x" * 90}
    assert asked(source("lab/both")) == (72, None, (".bin",))
    assert asked(source("lab/old")) == (92, None, ())


def test_the_hub_tells_what_may_not_be_read(hub):
    hub.repos["lab/gated"] = {}
    hub.refuse["lab/gated"] = 403
    hub.repos["lab/there"] = {}
    for repository, facts in (
        (source("lab/gated"), ("lab/gated", "gated", "HF_TOKEN")),
        (source("lab/none"), ("lab/none", "Hub", "private", "HF_TOKEN")),
        (source("lab/there", "v9"), ("lab/there", "revision 'v9'")),
    ):
        size, told, _ = asked(repository)
        assert size is None
        names(told, *facts)


def test_a_url_has_a_size_or_a_fault(hub):
    hub.files["there.bin"] = b"x" * 70
    there, absent = (
        UrlSource(kind="url", url=f"{hub.url}/{name}.bin", sha256="0" * 64) for name in ("there", "absent")
    )
    assert asked(there) == (70, None, ())
    names(asked(absent).fault, absent.url, 401)


def test_a_server_that_does_not_answer_is_asked_once_and_told_once(root, monkeypatch):
    """Three sources of two servers: nobody listens for the Hub, and the other's name does not exist."""
    choose(root)
    edit(
        root / "experiments/lm/published.yaml",
        ("{kind: folder, path: $LM}", "{kind: hub, repo: lab/m, revision: main}"),
    )
    weights = "kind: whisper\nweights: {kind: hub, repo: lab/w, revision: v1}\n"
    asr = (Path(__file__).parent.parent / "experiments/asr/whisper-tiny.en.yaml").read_text().splitlines()
    kept = [line for line in asr if not line.startswith(("kind", "weights", "  "))]
    (root / "experiments/asr/published.yaml").write_text(weights + "\n".join(kept) + "\n")
    edit(root / "params.yaml", ("asr: ctc\n", "asr: published\n"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    _, lines = plan()
    (told,) = (line for line in lines if line.startswith("the Hub"))
    names(told, "not reachable", "refused", "lm.weights", "asr.weights")
    assert row(lines, "lm.weights") == ["lab/m@main", "no", "unknown"]
    assert "    hf download lab/m --revision main" in lines
    assert "    hf download lab/w --revision v1" in lines


@pytest.mark.parametrize(
    ("endpoint", "facts"),
    [("http://no-such-host.invalid", ("resolved", "network")), ("http://127.0.0.1:9", ("refused",))],
)
def test_why_the_hub_was_not_reachable(endpoint, facts, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    with pytest.raises(UnreachableError) as caught:
        asked(source("lab/model"))
    names(caught.value, *facts)


def test_a_silent_server_is_not_waited_for(root, monkeypatch):
    """One that takes the connection and says nothing, and one whose questions never end."""
    from alignslm.plan import downloads

    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    found, unreachable = downloads.answers([source("lab/model")])
    assert found == {}
    names(unreachable["the Hub"], "no answer")
    monkeypatch.setattr(downloads, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(downloads, "ASKING_S", 0.2)
    names(downloads.answers([source("lab/model")])[1]["the Hub"], "no answer")
    silent.close()


# --- the commands, typed ---


def typed(command, root, **variables):
    environment = {**os.environ, **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-euc", command], cwd=root, env=environment, capture_output=True, text=True, check=True
    )


def test_hf_download_provides_what_is_missing(root, hub, tmp_path):
    from alignslm.config.loading import load_experiment

    hub.repos["lab/m"] = {"config.json": b"{}", "model.safetensors": b"x" * 70, "pytorch_model.bin": b"x" * 90}
    choose(root)
    edit(
        root / "experiments/lm/published.yaml",
        ("{kind: folder, path: $LM}", "{kind: hub, repo: lab/m, revision: main}"),
    )
    ((fetch, *_), _) = fetches_of(load_experiment(root), ask=True)
    assert (fetch.present, fetch.num_bytes) == (False, 72)
    typed(fetch.command, root, HF_ENDPOINT=hub.url, HF_HUB_CACHE=huggingface_hub.constants.HF_HUB_CACHE)
    ((fetch, *_), _) = fetches_of(load_experiment(root), ask=True)
    assert fetch.present
    assert not any(path.endswith(".bin") for _, path, _ in hub.requests)


@pytest.mark.parametrize("name", ["model.bin", "folder.zip"])
def test_curl_provides_a_file_that_is_then_verified_without_network(name, root, hub, tmp_path, monkeypatch):
    from alignslm.fetching import FetchError, download, is_cached
    from alignslm.plan.downloads import Download

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inside.txt", "hello")
    content = packed.getvalue()
    monkeypatch.setenv("ALIGNSLM_CACHE", str(tmp_path / "a cache"))
    hub.files[name] = content
    there = UrlSource(kind="url", url=f"{hub.url}/{name}", sha256=hashlib.sha256(content).hexdigest())
    command = Download("x", there, pinned=True, present=False).command
    typed(command, root)
    assert is_cached(there)
    hub.files.clear()
    found = download(there).path
    assert (found / "inside.txt").read_text() == "hello" if name == "folder.zip" else found.read_bytes() == content
    other = there.model_copy(update={"sha256": "0" * 64})
    hub.files[name] = content
    typed(Download("x", other, pinned=True, present=False).command, root)
    assert not is_cached(other)
    with pytest.raises(FetchError, match="promises"):
        download(other)


def test_the_command_of_a_folder_provides_it(root, hub, tmp_path, monkeypatch):
    """As TWIST's choices declare it: an archive of no known checksum, unpacked to a folder of this machine."""
    packed = io.BytesIO()
    tiny = OPTConfig(hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=102)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", json.dumps(tiny.to_dict()))
    hub.files["lms/TINY.zip"] = packed.getvalue()
    choose(root)
    fetch = f'curl -fLO {hub.url}/lms/TINY.zip\n      python -m zipfile -e TINY.zip "$LM"'
    folder = f"\n  kind: folder\n  path: $LM\n  fetch: |\n      {fetch}\n"
    edit(root / "experiments/lm/published.yaml", (" {kind: folder, path: $LM}\n", folder))
    monkeypatch.setenv("LM", str(tmp_path / "tiny lm"))
    _, lines = plan("--offline")
    at = next(n for n, line in enumerate(lines) if line.startswith("missing: ") and "weights.path" in line)
    command = "\n".join(line.strip() for line in lines[at + 1 : at + 3])
    assert command == fetch.replace("      ", "")
    typed(command, root)
    _, lines = plan("--offline")
    assert row(lines, "lm.weights") == ["$LM", "no", "here"]
    assert not any(line.startswith("missing: ") and "weights.path" in line for line in lines)


def test_the_command_of_two_choices_is_told_once(root):
    from alignslm.config.prerequisites import folder_faults
    from alignslm.config.presets import preview

    shipped = Path(__file__).parent.parent
    faults = [str(fault) for fault in folder_faults(preview("twist-1.3b", shipped).experiment, shipped)]
    (told,) = (fault for fault in faults if "zrc datasets:pull" in fault)
    names(told, "swuggy.yaml", "data.path")
    (twist,) = (fault for fault in faults if "ALIGNSLM_MODELS" in fault)
    names(
        twist, "https://dl.fbaipublicfiles.com/textless_nlp/twist/lms/TWIST-1.3B.zip", '"$ALIGNSLM_MODELS/TWIST-1.3B"'
    )


# --- what a judge costs ---


def test_dollars_of_a_judge_by_hand(root):
    choose(root)
    price = "price: {read: 2.5, written: 10.0}\nconcurrency: 1"
    edit(root / "experiments/judge/gpt.yaml", ("concurrency: 1", price), ("rubric: ten-words", "rubric: eight"))
    edit(root / "params.yaml", ("judge: story ", "judge: gpt "), ("heldout_judge: gpt", "heldout_judge: ngram"))
    (root / "experiments" / "rubric").mkdir()
    (root / "experiments" / "rubric" / "eight.txt").write_text("one two three four five six {prompt} {continuation}")
    _, lines = plan("--offline")
    told = " ".join(row(lines, "judge"))
    read = 630 * 2 * round((8 + 36.72) * 1.4) * 2.5 / 1e6  # two votes on each of 550 and 80 stories
    written = 630 * 2 * 50 * 10.0 / 1e6
    names(told, f"${read:.2f}", f"${written:.2f}", f"${(read + written) * 550 / 630 / 2:.2f} per round")


# --- which stages would run ---


def test_stages_that_would_run_are_those_that_dvc_runs(tmp_path, monkeypatch):
    """Three stages in a row, really run by DVC: nothing, a value, an input, an output that stays the same."""
    from alignslm.plan.stages import planned_stages

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("one: 1\ntwo: 2.50\n")
    (tmp_path / "input.txt").write_text("x")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  check: {cmd: echo fine > ok, params: [{params.yaml: }], outs: [ok]}\n"
        "  a: {cmd: cp input.txt a, deps: [ok, input.txt], params: [one], outs: [a]}\n"
        "  b: {cmd: mkdir b && cp a b/c, deps: [a], outs: [b]}\n"
        "  c: {cmd: cp b/c c, deps: [b], params: [two], outs: [c]}\n"
    )

    def told(params=None):
        return [stage.name for stage in planned_stages(tmp_path, params=params)[1]]

    assert told() == ["check", "a", "b", "c"]
    for command in ("init --no-scm -q", "repro -q"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], check=True)
    assert told() == []
    assert told("one: 1\ntwo: 3\n") == ["check", "c"]
    assert told("one: 2\ntwo: 2.5\n") == ["check", "a", "b", "c"]
    (tmp_path / "input.txt").write_text("y")
    assert told() == ["a", "b", "c"]
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)
    assert told() == []
    edit(tmp_path / "dvc.yaml", ("cp b/c c,", "cp ./b/c c,"))
    assert told() == ["c"]


def test_a_second_plan_has_nothing_to_run(root):
    import yaml

    made = {"corpus": "corpus", "rounds@r1": "r1", "rounds@r2": "r2"}
    locked = {name: {"cmd": "", "outs": [{"path": f"artifacts/{out}", "md5": "0"}]} for name, out in made.items()}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    code, lines = plan("--offline")
    assert code == 0
    names(" ".join(row(lines, "stages")), "none will run")
    names(lines[-1], "nothing to run")


def test_json_holds_what_the_page_rounds(root):
    choose(root)
    result = CliRunner().invoke(app, ["plan", "--offline", "--json"])
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data["work"]["prompts"] == 65
    assert data["work"]["asked"][1]["requests"] == 160
    assert [item["key"] for item in data["sources"]] == ["lm.weights"]
    assert len(data["missing"]) == 4
    assert data["will_run"] == data["stages"] == ["corpus", "rounds@r1", "rounds@r2"]


# --- shapes ---

CONFIGS = {
    "twist-350m": None,  # OPT-350M projects its embedding: the shape is rounded up
    "twist-1.3b": OPTConfig(hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32, vocab_size=505),
    "twist-7b": LlamaConfig(vocab_size=505, tie_word_embeddings=True),
    "slam": Qwen2Config(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, vocab_size=502, tie_word_embeddings=True),
    "mistral-7b-instruct-v0.2": MistralConfig(),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config is not None])
def test_published_shapes_have_the_parameters_of_the_real_models(name, tmp_path):
    config = CONFIGS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = sum(weight.numel() for weight in model.parameters())
    assert PUBLISHED[name].parameters == pytest.approx(real, rel=0.005)
    config.save_pretrained(tmp_path)
    assert read_shape(tmp_path / "config.json") == PUBLISHED[name]


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_the_adapter_is_as_large_as_pefts(kind):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
    extra = {"intermediate_size": 80, "num_key_value_heads": 2} if kind == "llama" else {"ffn_dim": 80}
    word = {"word_embed_proj_dim": 32} if kind == "opt" else {}
    config = AutoConfig.for_model(kind, **small, **extra, **word, tie_word_embeddings=True)
    adapted = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=3, target_modules="all-linear"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    shape = Shape(32, 2, 4, 2 if kind == "llama" else 4, 80, 50, gated=kind == "llama")
    assert shape.adapter(Lora(r=3, alpha=1, target_modules="all-linear")) == trained


def test_slamkits_nested_config_and_unknown_ones(tmp_path):
    nested = {"model_type": "speech_language_model", "base_config": CONFIGS["slam"].to_dict(), "vocab_size": 502}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert shape_of(FolderSource(kind="folder", path=str(tmp_path))) == PUBLISHED["slam"]
    (tmp_path / "config.json").write_text("not json")
    assert shape_of(FolderSource(kind="folder", path=str(tmp_path))) is None
    (tmp_path / "config.json").write_text('{"d_model": 5}')
    assert read_shape(tmp_path / "config.json") is None


def test_a_model_that_is_not_here_is_known_by_its_name():
    assert shape_of(FolderSource(kind="folder", path="$NOWHERE/TWIST-7B/")) == PUBLISHED["twist-7b"]
    url = UrlSource(kind="url", url="https://example.org/lms/TWIST-1.3B.zip", sha256="0" * 64)
    assert shape_of(url) == PUBLISHED["twist-1.3b"]
    assert shape_of(HubSource(kind="hub", repo="lab/unheard-of", revision="main")) is None


def test_told_figures():
    assert [format_bytes(n) for n in (0, 999, 1000, 14_500_000_000, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "14.5 GB",
        "3.0 TB",
    ]
    assert [format_count(n) for n in (999, 1000, 2_500_000, 10**9)] == [
        "999",
        "1.0 thousand",
        "2.5 million",
        "1.0 billion",
    ]


@pytest.mark.parametrize(("key", "stories", "told"), [("judge", 1100, "$0.50 per round"), ("heldout_judge", 200, None)])
def test_only_the_judge_of_the_rounds_has_a_cost_of_a_round(key, stories, told):
    volume = Workload(1.0, 10, 0, 500, 200, 300, 0, 100, 1, 1.0, [])
    asked = JudgeRequests(key, "gpt4o", stories, stories, 0, 0, (0.4, 0.7))
    assert ("per round" in judge_line(asked, volume)) == (told is not None)
    assert told is None or f"at most {told}" in judge_line(asked, volume)

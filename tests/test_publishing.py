"""A round published: pushed, killed half-way, pushed again unchanged, loaded by readers' own tools."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import polars as pl
import pytest
import torch
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.document import read_document
from alignslm.config.loading import load_experiment
from alignslm.config.presets import apply_preset, preview
from alignslm.config.problems import ConfigError
from alignslm.integrity import LockError
from alignslm.lm.checkpoint import load_lm
from alignslm.publishing import PublishError, Receipt
from alignslm.publishing.cards import dataset_card, model_card
from alignslm.publishing.dataset import Subset
from alignslm.publishing.lineage import lock_slice
from alignslm.publishing.pairs import read_sources
from alignslm.publishing.pushing import packages_of, publish, published_of
from alignslm.publishing.results import read_report
from alignslm.report.metrics import Report
from stages.publish import main
from tests import publish_world
from tests.hub_stand_in import TOKEN, serving
from tests.messages import names
from tests.micro import ENVIRONMENT, edit
from tests.publish_world import read_json
from tests.tiny_hub import point_hub_at

ROOT = Path(__file__).parent.parent
MODEL, DATASET = ("model", "me/talk-r1"), ("dataset", "me/talk-r1-pairs")


@pytest.fixture(scope="module")
def hub():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return publish_world.build(tmp_path_factory.mktemp("experiment"))


@pytest.fixture
def client(hub, monkeypatch):
    point_hub_at(hub.url, monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def elsewhere(hub, home: Path) -> dict[str, str]:
    """Return the variables of another person's fresh machine that asks this Hub."""
    return {
        **ENVIRONMENT,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
    }


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def killed(hub, world, tmp_path_factory) -> str:
    """Kill -9 the stage while large files are under way, and return what it said."""
    hub.stall_after = 2
    before = hashes(world / "artifacts")
    stage = subprocess.Popen(
        [sys.executable, "-m", "stages.publish", "r1"],
        cwd=world,
        env=elsewhere(hub, tmp_path_factory.mktemp("home")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert hub.stalled.wait(60)
    os.kill(stage.pid, signal.SIGKILL)
    said = stage.communicate()[0]
    hub.stall_after = None
    hub.released.set()
    assert hashes(world / "artifacts") == before
    return said


def run_stage(world: Path, monkeypatch) -> Receipt:
    monkeypatch.chdir(world)
    main("r1")
    return Receipt.model_validate_json((world / "artifacts/published/r1.json").read_text())


@pytest.fixture(scope="module")
def receipt(hub, world, killed) -> Receipt:
    with pytest.MonkeyPatch.context() as monkeypatch:
        point_hub_at(hub.url, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        return run_stage(world, monkeypatch)


def test_a_push_killed_half_way_shows_nothing_and_the_next_one_is_one_commit(hub, world, killed, receipt):
    assert "Traceback" not in killed
    assert receipt.status == "pushed"
    for kind, repo in (MODEL, DATASET):
        found = hub.repos[kind, repo]
        assert found.private
        assert len(found.commits) == 2  # the Hub's own first one, and the push
        assert receipt.pushed[kind].commit == found.head.oid
        assert found.tags == {receipt.pushed[kind].tag: found.head.oid}
        assert {name: hashlib.sha256(found.head.files[name]).hexdigest() for name in receipt.pushed[kind].files} == {
            name: file.sha256 for name, file in receipt.pushed[kind].files.items()
        }


def test_an_unchanged_round_is_not_pushed_again(hub, world, receipt, client, monkeypatch):
    hub.requests.clear()
    assert run_stage(world, monkeypatch) == receipt
    assert hub.sent("PUT") == hub.sent("POST", "/commit/") == []


def test_a_later_round_changes_nothing_of_an_earlier_one(world, receipt, tmp_path):
    """Neither its entries in dvc.lock nor its numbers in the report."""
    experiment = load_experiment(world)
    before = packages_of(experiment, "r1", world, tmp_path / "a")["model"].bundle["README.md"]
    publish_world.write_lock(world, checkpoint_r2="9" * 32)
    report = Report.model_validate_json((world / "reports/metrics.json").read_text())
    moved = tuple(m.model_copy(update={"value": 4.9}) if m.model == "r2" and m.value else m for m in report.metrics)
    (world / "reports/metrics.json").write_text(report.model_copy(update={"metrics": moved}).to_json())
    assert packages_of(experiment, "r1", world, tmp_path / "b")["model"].bundle["README.md"] == before


def test_the_token_is_in_nothing_that_was_written_or_said(hub, world, killed, receipt, capfd):
    secret = TOKEN.encode()
    assert secret not in hub.stored()
    assert all(secret not in path.read_bytes() for path in world.rglob("*") if path.is_file())
    assert TOKEN not in killed
    assert TOKEN not in "".join(capfd.readouterr())


READER = """
import json, sys, torch
torch.manual_seed(7)
{snippet}
start_units = continuation
with torch.inference_mode():
    merged = model(ids).logits
{adapter}
with torch.inference_mode():
    apart = model(ids).logits
{data}
import datasets, hashlib
row = pairs.select_columns(["chosen_text", "chosen"]).cast_column("chosen", Audio(decode=False))[0]
print(json.dumps({{
    "continuation": start_units,
    "apart": float((merged - apart).abs().max()),
    "spread": float(merged.abs().max()),
    "rows": len(pairs),
    "chosen_text": row["chosen_text"],
    "chosen": hashlib.sha256(flac).hexdigest(),
    "path": row["chosen"]["path"],
    "audio": sorted(name for name, kind in pairs.features.items() if type(kind).__name__ == "Audio"),
    "units": str(pairs.features["chosen_units"]),
    "subsets": sorted(datasets.get_dataset_config_names({repo!r})),
}}))
"""


@pytest.fixture(scope="module")
def read(hub, receipt, tmp_path_factory) -> dict:
    """Run the cards' own code on a fresh machine, and return what it found."""
    card, data = (hub.repos[key].head.files["README.md"].decode() for key in (MODEL, DATASET))
    snippet, adapter = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (loading,) = re.findall(r"```python\n(.*?)```", data, re.DOTALL)
    program = READER.format(snippet=snippet, adapter=adapter, data=loading, repo=DATASET[1])
    home = tmp_path_factory.mktemp("reader")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=home,
        env=elsewhere(hub, home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_cards_code_draws_what_the_checkpoint_here_draws(world, read):
    lm = load_lm(world / "artifacts/checkpoints/r1", device="cpu")
    prompts = tables.read(tables.PROMPTS, world / "artifacts/prompts.parquet").filter(pl.col("split") == "test")
    ids = torch.tensor([lm.vocabulary.encode(prompts["units"][0], bos=True)])
    sampling = load_experiment(world).params.sampling
    torch.manual_seed(7)
    drawn = lm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=sampling.max_new_units,
        suppress_tokens=[0, 1],
    )
    units = [token - 3 for token in drawn[0, ids.shape[1] :].tolist() if token >= 3]
    assert len(units) > 10
    assert read["continuation"] == units


def test_the_adapter_on_its_start_is_the_merged_model(read):
    assert read["spread"] > 1
    assert read["apart"] < 1e-4


def test_the_dataset_loads_with_audio_that_can_be_played(world, read):
    pairs = tables.read(tables.PAIRS, world / "artifacts/pairs/r1.parquet").filter(split="train")
    speech = tables.read(tables.SPEECH, world / "artifacts/speech/r1")
    (sound,) = speech.filter(continuation_id=pairs["chosen_id"][0])["audio"].to_list()
    assert read["rows"] == len(pairs)
    assert read["chosen"] == hashlib.sha256(sound["bytes"]).hexdigest()
    assert read["path"] == f"{pairs['chosen_id'][0]}.flac"
    assert read["audio"] == ["chosen", "prompt", "rejected"]
    assert read["subsets"] == ["continuations", "item_scores", "judged", "pairs", "skipped_prompts"]


def split_of(hub, subset: str, split: str) -> pl.DataFrame:
    files = hub.repos[DATASET].head.files
    return pl.concat([pl.read_parquet(files[name]) for name in sorted(files) if name.startswith(f"{subset}/{split}-")])


def test_every_prompt_and_every_continuation_is_accounted_for(hub, world, receipt):
    for ours, theirs in (("train", "train"), ("valid", "validation")):
        paired = set(split_of(hub, "pairs", theirs)["prompt_id"])
        without = set(split_of(hub, "skipped_prompts", theirs)["prompt_id"])
        prompts = tables.read(tables.PROMPTS, world / "artifacts/prompts.parquet").filter(split=ours)["prompt_id"]
        assert paired | without == set(prompts)
        assert not paired & without
        drawn = split_of(hub, "continuations", theirs)
        assert len(drawn) == publish_world.SPLITS[ours] * publish_world.DRAWS
    silent = split_of(hub, "continuations", "train").filter(pl.col("audio").is_null())
    assert silent["continuation_id"].to_list() == ["p-train-00-1"]


def test_continuations_that_stay_here_are_not_read(world, tmp_path):
    config = load_experiment(world).publish.dataset.model_copy(update={"continuations": False, "prompt_audio": False})
    folder = tmp_path / "artifacts"
    shutil.copytree(world / "artifacts", folder, ignore=shutil.ignore_patterns("continuations", "checkpoints"))
    sources = read_sources("r1", config, Artifacts(folder), tmp_path / "work")
    assert (len(sources.continuations), len(sources.pairs) > 0) == (0, True)


def test_a_row_holds_what_the_tables_hold(hub, world, receipt):
    row = split_of(hub, "pairs", "train").row(0, named=True)
    scores = tables.read(tables.SCORES, world / "artifacts/scores/r1.parquet")
    for side in ("chosen", "rejected"):
        score = scores.filter(continuation_id=row[f"{side}_id"]).row(0, named=True)
        assert row[f"{side}_judge_score"] == score["judge_score"]
        assert row[f"{side}_text"] == f"she sings song {score['sample_index']}"
    assert row["margin"] == row["chosen_utility"] - row["rejected_utility"]
    assert row["prompt_text"] == "a girl"


# --- the card's metadata and its tables


def test_the_model_index_holds_the_reports_numbers_with_their_intervals(hub, world, receipt):
    card = ModelCard(hub.repos[MODEL].head.files["README.md"].decode())
    told = {(result.dataset_type, result.metric_type): result for result in card.data.eval_results}
    report = Report.model_validate_json(hub.repos[MODEL].head.files["experiment/metrics.json"])
    judge = report.metric("r1", "continuation", "heldout_judge_score")
    found = told["storyworld-full-prompts", "heldout_judge_score"]
    assert found.metric_value == round(judge.value, 4)
    assert found.metric_args == {
        "ci95": [round(end, 4) for end in judge.ci95],
        "stderr": round(judge.stderr, 4),
        "n": judge.n,
        "n_missing": judge.n_missing,
    }
    accuracy = told["toy-sblimp-full", "accuracy"]
    assert accuracy.metric_value == round(100 * report.metric("r1", "sblimp", "accuracy").value, 4)
    assert {metric.model for metric in report.metrics} >= {"base", "sft", "r1", "ground-truth"}
    assert "r2" not in {metric.model for metric in report.metrics}
    assert (card.data.license, card.data.library_name, card.data.datasets) == ("mit", "transformers", [DATASET[1]])


def test_the_parameters_in_the_repository_make_the_same_experiment_and_publish_nothing(hub, world, receipt, tmp_path):
    files = hub.repos[MODEL].head.files
    for name, content in files.items():
        if name.startswith("experiment/"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    there, here = load_experiment(tmp_path / "experiment"), load_experiment(world)
    assert there.publish.kind == "none"
    assert there.model_dump(exclude={"publish", "params"}) == here.model_dump(exclude={"publish", "params"})
    assert (tmp_path / "experiment/artifacts/encoder/encoder.json").exists()


def test_the_published_adapter_names_no_folder_of_this_machine(hub, receipt):
    config = json.loads(hub.repos[MODEL].head.files["adapter/adapter_config.json"])
    assert config["base_model_name_or_path"] is None
    assert config["r"] == 4


def test_the_lock_in_the_repository_is_what_the_round_rests_on(hub, world, receipt):
    lock = hub.repos[MODEL].head.files["experiment/dvc.lock"]
    stages = set(YAML(typ="safe").load(lock)["stages"])
    assert {"units", "base", "pairs@r1", "train@r1", "eval@r1", "eval@sft"} <= stages
    assert "train@r2" not in stages
    digest = hashlib.sha256(lock).hexdigest()
    assert receipt.pushed["model"].tag == f"r1-{digest[:8]}"
    assert f"`{digest}`" in hub.repos[MODEL].head.files["README.md"].decode()


PARTS = ("corpus", "encoder", "lm", "vocoder", "asr", "judge", "selector")
CITED_ALWAYS = {"lin2025alignslm", "rafailov2023dpo", "hu2021lora"}
OF_WHISPER = {"hsu2021hubert", "polyak2021resynthesis", "radford2022whisper", "panayotov2015librispeech"}


@pytest.mark.parametrize(
    ("preset", "facts", "cited"),
    [
        ("twist-1.3b-mls", ("TWIST-1.3B", "openai/whisper-large-v2", "MLS", "CC BY 4.0"),
         {*OF_WHISPER, "hassid2023twist", "pratap2020mls"}),
        ("slam", ("slprl/slam", "slprl/mhubert-base-25hz", "LibriSpeech"), {*OF_WHISPER, "maimon2025slamming"}),
        ("custom-corpus", ("folder", "best", "worst"), set()),
    ],
)  # fmt: skip
def test_both_cards_name_and_cite_other_peoples_models_and_speech(world, preset, facts, cited):
    experiment, other = load_experiment(world), preview(preset, ROOT).experiment
    mixed = experiment.model_copy(update={key: getattr(other, key) for key in PARTS})
    published = published_of(mixed, "r1", world)
    subsets = [Subset("pairs", {"train": []}, {"train": 7})]
    for card in (
        model_card(published, read_report(world / "reports/metrics.json", mixed, "r1")).decode(),
        dataset_card(published, subsets, sample_rate_hz=8000).decode(),
    ):
        names(card, *(fact for fact in facts if fact != "TWIST-1.3B" or "# Use" in card))
        assert set(re.findall(r"@\w+{(\w+),", card)) == CITED_ALWAYS | cited
        assert not re.search("demonstration|{%|{{ |None|Undefined", card)


def test_the_card_says_whether_training_had_a_reference(world):
    experiment = load_experiment(world)
    for free, said in ((False, "the reference is the round's own"), (True, "there is no reference model; a pair's")):
        trainer = experiment.checkpoints["r1"].model_copy(update={"reference_free": free, "margin_weights": free})
        changed = experiment.model_copy(update={"checkpoints": {**experiment.checkpoints, "r1": trainer}})
        report = read_report(world / "reports/metrics.json", changed, "r1")
        assert f" pairs;\n   {said}" in model_card(published_of(changed, "r1", world), report).decode()


# --- what is refused before anything is pushed


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("stages:\n<<<<<<< HEAD\n  a:\n    cmd: x\n=======\n  a:\n    cmd: y\n>>>>>>> other\n", "line 3"),
        ("", "by git"),
        ("[]", "by git"),
    ],
)
def test_a_lock_with_conflict_markers_is_told(tmp_path, text, fact):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(LockError) as raised:
        lock_slice(tmp_path / "dvc.lock", ["artifacts/checkpoints/r1"])
    names(raised.value, tmp_path / "dvc.lock", fact, "conflict")


def test_a_lock_that_does_not_know_the_checkpoint(tmp_path):
    publish_world.write_lock(tmp_path)
    with pytest.raises(PublishError) as told:
        lock_slice(tmp_path / "dvc.lock", ["artifacts/checkpoints/r1", "artifacts/checkpoints/r7"])
    names(told.value, "dvc repro", tmp_path / "dvc.lock", "artifacts/checkpoints/r7")


def test_without_a_token_nothing_is_built(world, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(PublishError, match="HF_TOKEN"):
        publish(load_experiment(world), "r1", world)
    assert not (world / ".work").exists() or not list((world / ".work").glob("publish-*"))


# --- off


def test_off_it_writes_a_receipt_and_imports_nothing_heavy(world, tmp_path):
    root = tmp_path / "off"
    (root / "artifacts").mkdir(parents=True)
    (root / "experiments").symlink_to(ROOT / "experiments")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    program = (
        "import sys; from stages.publish import main; main('r1'); "
        "print(sorted({'torch', 'polars', 'huggingface_hub', 'datasets', 'numpy', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "HF_TOKEN": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert read_json(root / "artifacts/published/r1.json") == {
        "round": "r1",
        "status": "not published",
        "reason": "publishing is off: `publish: none` in params.yaml",
        "pushed": {},
    }


# --- the configuration


def faults_of(root: Path, changes: dict) -> list[str]:
    with (root / "experiments/publish/mine.yaml").open("w") as stream:
        YAML().dump({**publish_world.PUBLISH, **changes}, stream)
    with pytest.raises(ConfigError) as told:
        load_experiment(root)
    return [f"{fault.key}: {fault.message}" for fault in told.value.faults]


@pytest.fixture(scope="module")
def choices(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("choices")
    shutil.copytree(ROOT / "experiments", root / "experiments")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    apply_preset("embedded-full", root)  # two rounds
    edit(root / "params.yaml", {"publish": "mine"})
    return root


WRONG = ("'-'", "'_'", "'.'", "'.git'", "'--'", "'..'")  # what a name may not hold, or not everywhere


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model": {**publish_world.PUBLISH["model"], "repo": "talk"}},
            ("model.repo", "talk", "owner/name", "your-name/alignslm-{round}"),
        ),
        (
            {"model": {**publish_world.PUBLISH["model"], "repo": "me/my talk"}},
            ("model.repo", "me/my talk", *WRONG),
        ),
        (
            {"model": {**publish_world.PUBLISH["model"], "repo": "me/talk-{name}"}},
            ("model.repo", "me/talk-{name}", "{round}"),
        ),
        (
            {"dataset": {**publish_world.PUBLISH["dataset"], "repo": "me/talk"}},
            ("dataset.repo", "r1, r2", "me/talk", "{round}", "rounds: last"),
        ),
        (
            {"model": {**publish_world.PUBLISH["model"], "repo": "your-name/talk-{round}"}},
            ("model.repo", "your-name"),
        ),
        (
            {"model": {**publish_world.PUBLISH["model"], "repo": "me/talk-{round}-pairs"}},
            ("dataset.repo", "model.repo", "me/talk-{round}-pairs"),
        ),
        (
            {"model": None, "dataset": None},
            ("model", "dataset", "null", "publish: none"),
        ),
        (
            {"tag": "v1"},
            ("tag", "'v1'", "{experiment}"),
        ),
        ({"tag": "a b{experiment}"}, ("tag", "'a b{experiment}'", "'.'", "'-'", "'_'", "{round}")),
        ({"token": "hf_abc"}, ("token", "unknown", "kind, rounds, private, tag, language, code_url, model, dataset")),
    ],
)  # fmt: skip
def test_what_check_says_of_a_choice_of_publishing(choices, changes, told):
    (fault,) = faults_of(choices, changes)
    names(fault, *told)


def test_a_fault_names_its_line(choices):
    faults = faults_of(choices, {"private": "yes"})
    assert faults == ["private: expected true or false, found 'yes' (text)"]
    document = read_document(choices / "experiments/publish/mine.yaml")
    assert document.line(("private",)) == 3

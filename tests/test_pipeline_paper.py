"""The paper-shaped pipeline end to end through DVC: HuBERT, TWIST or Slam, unit HiFi-GAN, Whisper, LLM judges.

One repository serves all tests of this file, in order; the checkpoints are tiny, in the exact published formats.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq
import pytest

from alignslm import tables
from alignslm.lm.checkpoint import load_lm
from alignslm.provenance import UnitContract, file_sha256
from tests import paper_shaped
from tests.chat_server import transformers_serve
from tests.messages import names
from tests.micro import WARM, run, stages_of

pytestmark = pytest.mark.long

TABLES = {table.name: table for table in vars(tables).values() if isinstance(table, tables.Table)}
SPEECH = {"corpus", "encoder", "units", "prompts", "vocoder", "asr", "prompt_transcripts", "benchmarks@swuggy"}
JUDGES = {"judge@mistral-7b-generate", "judge@mistral-7b-v0.3"}
ROUND = {f"{stage}@r1" for stage in ("continuations", "speech", "transcripts", "scores", "pairs", "train")}
EVALUATION = {
    *("samples@r1", "samples@base", "samples@ground-truth", "mos"),
    *("eval@r1", "eval@base", "eval@ground-truth", "report", "publish@r1", "publish@sft", "publish@ntp"),
}
MODEL = {"base", "train@sft", "train@ntp"} | ROUND | EVALUATION


def made_of(said: str) -> list[str]:
    """Return the stages that ran, in order, without those that only read params.yaml and the configs it names."""
    return [name for name in stages_of(said) if name.partition("@")[0] != "own_code"]


class Paper(NamedTuple):
    root: Path
    models: Path
    variables: dict[str, str]

    def dvc(self, *arguments: str, warm: bool = True, fails: bool = False) -> str:
        return run(self.root, *(WARM if warm else ()), "dvc", *arguments, fails=fails, variables=self.variables)

    def forget_changes(self) -> None:
        run(self.root, "git", "checkout", "-q", "params.yaml", "experiments")

    def ledger(self) -> list[str]:
        found = list((self.models / "cache" / "judge").glob("*/ledger.jsonl"))
        assert len(found) == 1
        return found[0].read_text().splitlines()


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Paper:
    folder = tmp_path_factory.mktemp("paper")
    variables = paper_shaped.make_repository(folder / "root", folder / "models")
    return Paper(folder / "root", folder / "models", variables)


def table_of(path: Path) -> tables.Table:
    return TABLES[pq.read_schema(path).metadata[b"alignslm.table"].decode()]


def refused_for_want_of_a_key(paper: Paper, *changes: str) -> str:
    """Ask for gpt4o without a key; return what was said."""
    said = paper.dvc("exp", "run", "-S", "judge=gpt4o", *changes, warm=False, fails=True)
    names(
        said,
        "gpt-4o-2024-11-20",
        "experiments/judge/gpt4o.yaml:6",
        "api_key_env",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY=",
        "params.yaml",
    )
    assert "Traceback" not in said
    paper.forget_changes()
    return said


def test_without_its_key_a_judge_stops_the_run_before_anything_is_made(paper):
    elsewhere = paper._replace(variables={**paper.variables, "ALIGNSLM_MODELS": "/nowhere"})
    said = refused_for_want_of_a_key(elsewhere)
    names(said, "experiments/lm/twist-1.3b.yaml:7", "weights.path", "/nowhere/TWIST-1.3B")
    assert made_of(said) == []
    assert not list((paper.root / "artifacts").rglob("*.parquet"))


def test_nothing_is_missing_and_the_plan_says_what_is_read(paper):
    said = run(paper.root, "alignslm", "plan", "--offline", variables=paper.variables, check=False)
    assert re.search(r"^lm\.weights +\$ALIGNSLM_MODELS/TWIST-1\.3B +no +here$", said, re.MULTILINE)
    assert re.search(r"^prompts +28, 28 ", said, re.MULTILINE)
    missing = re.findall(r"^missing: (\w+)", said, re.MULTILINE)  # it takes the corpus for all of LibriSpeech
    assert missing == ["disk"] or "nothing is missing" in said


def test_the_preset_runs_from_recordings_to_the_report(paper):
    ran = made_of(paper.dvc("repro"))
    assert set(ran) == SPEECH | JUDGES | MODEL
    assert len(ran) == len(set(ran))
    assert ran[:3] == ["corpus", "judge@mistral-7b-generate", "judge@mistral-7b-v0.3"]  # what may be missing, first


def test_every_table_verifies_and_tells_what_its_units_mean(paper):
    artifacts = paper.root / "artifacts"
    told = json.loads((artifacts / "checkpoints/base/unit_contract.json").read_text())
    contract = UnitContract.model_validate(told)
    assert (contract.num_units, contract.layer, contract.frame_rate_hz) == (paper_shaped.NUM_UNITS, 2, 25.0)
    seen = set()
    for path in sorted(artifacts.rglob("*.parquet")):
        table = table_of(path)
        frame = tables.read(table, path)
        seen.add(table.name)
        if any(kind == tables.UNITS for kind in frame.schema.values()) or table.name == "speech":
            assert tables.contract_of(table, path) == contract, path
    assert seen >= {"utterances", "units", "prompts", "continuations", "speech", "transcripts", "scores", "pairs"}
    for name in ("base", "r1", "sft", "ntp"):
        assert load_lm(artifacts / "checkpoints" / name, device="cpu").contract == contract
    voice = json.loads((artifacts / "vocoder/vocoder.json").read_text())
    assert UnitContract.model_validate(voice["contract"]) == contract


def test_ratings_are_written_answers_and_pairs_follow_the_papers_rule(paper):
    transcripts = pl.read_parquet(paper.root / "artifacts/transcripts/r1.parquet")
    read = pl.col("continuation_id").is_in(transcripts.filter(pl.col("status") == "ok")["source_id"].to_list())
    scores = pl.read_parquet(paper.root / "artifacts/scores/r1.parquet")
    assert set(scores.filter(~read)["status"]) <= {"failed"}  # the tiny recogniser repeats itself now and then
    scores = scores.filter(read)
    assert len(scores) > 60
    assert set(scores["status"]) == {"ok"}
    assert set(scores["judge_score"]) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert scores["ppl"].is_finite().all()
    replies = pl.read_parquet(paper.root / "artifacts/replies/r1.parquet")
    assert replies["reply"].str.contains(r"^\\boxed\{[1-5]\}").all()
    rated = dict(scores.select("continuation_id", "judge_score").iter_rows())
    pairs = pl.read_parquet(paper.root / "artifacts/pairs/r1.parquet")
    assert {"train", "valid"} == set(pairs["split"])
    assert all(rated[name] >= paper_shaped.ROUND["min_chosen_score"] for name in pairs["chosen_id"])
    assert all(rated[name] <= paper_shaped.ROUND["max_rejected_score"] for name in pairs["rejected_id"])


def test_training_moved_the_model_and_the_report_shows_it(paper):
    checkpoints = paper.root / "artifacts/checkpoints"
    assert len({file_sha256(checkpoints / name / "model.safetensors") for name in ("base", "r1", "sft", "ntp")}) == 4
    report = json.loads((paper.root / "reports/metrics.json").read_text())
    models = {metric["model"] for metric in report["metrics"]}
    assert models == {"base", "r1", "ground-truth", "original-prompts", "original-continuations"}
    assert {metric["benchmark"] for metric in report["metrics"]} >= {"swuggy"}
    page = (paper.root / "reports/index.html").read_text()
    assert "mistral-7b-v0.3" in page
    assert "data:audio/flac;base64," in page


def test_without_a_key_another_model_is_not_begun_either(paper):
    assert made_of(refused_for_want_of_a_key(paper, "-S", "lm=slam")) == ["judge@gpt4o"]


def test_slam_with_a_judge_behind_a_real_server(paper):
    with transformers_serve(paper.models / "judge") as url:
        place = f"experiments/judge/local-server.yaml:base_url={url}"
        ran = made_of(paper.dvc("exp", "run", "-S", "lm=slam", "-S", "judge=local-server", "-S", place))
    of_the_corpus = {"samples@ground-truth"}  # stands on no checkpoint
    assert set(ran) == MODEL - of_the_corpus | {"judge@local-server"}
    config = json.loads((paper.root / "artifacts/checkpoints/base/config.json").read_text())
    assert config["model_type"] == "qwen2"
    replies = pl.read_parquet(paper.root / "artifacts/replies/r1.parquet")
    assert set(replies["judge"]) == {"local-server"}
    assert {"ok"} <= set(replies["status"]) <= {"ok", "empty"}  # a model may end before it has said anything
    assert {json.loads(line)["outcome"] for line in paper.ledger()} == {"answer"}
    report = json.loads((paper.root / "reports/metrics.json").read_text())
    assert {metric["model"] for metric in report["metrics"]} >= {"base", "r1", "ground-truth"}


def test_a_forced_rerun_of_scores_asks_nothing_although_the_server_is_gone(paper):
    scores = paper.root / "artifacts/scores/r1.parquet"
    before, asked = scores.read_bytes(), paper.ledger()
    assert stages_of(paper.dvc("repro", "--force", "--single-item", "scores@r1", warm=False)) == ["scores@r1"]
    assert scores.read_bytes() == before
    assert paper.ledger() == asked

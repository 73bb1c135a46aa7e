"""Exact invalidation, shown by running the true pipeline at micro size through DVC.

One repository serves all tests of this file, in order: each changes one thing and looks at which stages ran.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from alignslm.publishing.lineage import lock_slice
from alignslm.report.summary import NAMES
from tests.messages import names
from tests.micro import (
    ENVIRONMENT,
    ROOT,
    SECOND_ROUND,
    WARM,
    changed,
    edit,
    loopback_only,
    make_repository,
    repro,
    run,
    stages_of,
)

PUBLISHED = {f"publish@{name}" for name in ("r1", "sft", "ntp")}
AFTER_PAIRS = {"pairs@r1", "train@r1", "train@sft", "samples@r1", "mos", "eval@r1", "report", *PUBLISHED}
ROUND_2 = {f"{stage}@r2" for stage in ("continuations", "speech", "transcripts", "scores", "pairs", "train")}


def connections_of(root: Path) -> Path:
    return root.with_name("connections.txt")


@pytest.fixture(scope="module")
def micro(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    make_repository(root)
    said = run(root, *WARM, "dvc", "repro", variables=loopback_only(connections_of(root)))
    assert "Warning" not in said
    ran = stages_of(said)
    assert {
        "corpus",
        "base",
        "pairs@r1",
        "train@r1",
        "train@sft",
        "train@ntp",
        "eval@ground-truth",
        "report",
    } <= set(ran)
    return root


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in (root / "artifacts").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_no_process_of_the_run_wanted_a_connection(micro):
    lines = connections_of(micro).read_text().splitlines()
    started = [line for line in lines if line.startswith("started ")]
    for command in ("alignslm.speed dvc repro", "dvc repro", "stages.train", "stages.check"):
        assert any(line.endswith(command) for line in started), command
    assert [line for line in lines if line not in started] == []


def test_nothing_changed_runs_nothing(micro):
    assert repro(micro) == []


def test_the_report_has_the_promised_form(micro):
    report = json.loads((micro / "reports/metrics.json").read_text())
    assert report["schema"] == 2
    keys = {"model", "benchmark", "metric", "value", "stderr", "ci95", "n", "n_missing", "higher_is_better"}
    assert all(set(metric) == keys for metric in report["metrics"])
    recorded = {"original-prompts", "original-continuations"}
    assert {metric["model"] for metric in report["metrics"]} == {"base", "r1", "ground-truth"} | recorded
    keys = {"model", "against", "benchmark", "metric", "delta", "stderr", "ci95", "p", "p_corrected", "n", "n_missing"}
    assert report["comparisons"]
    assert all(set(comparison) == keys for comparison in report["comparisons"])
    page = (micro / "reports/index.html").read_text()
    assert "data:audio/flac;base64," in page
    assert 'src="http' not in page


def test_dvc_shows_ten_metrics_that_fit_a_terminal(micro):
    summary = json.loads((micro / "reports/summary.json").read_text())
    assert tuple(summary) == NAMES
    header = run(micro, "dvc", "metrics", "show").splitlines()[0]
    assert header.split() == ["Path", *sorted(name for name, value in summary.items() if value is not None)]
    every = ("--only-changed", "--drop", "artifacts", "--keep", f"^({'|'.join(NAMES)})$")
    table = run(micro, "dvc", "exp", "show", "--no-pager", *every, variables={"COLUMNS": "160"})
    assert set(header.split()[1:]) <= set(table.split())  # none with its path before it, none cut
    assert max(map(len, table.splitlines())) + len("   sblimp   swuggy") <= 165  # two that this size has not
    said = run(micro, "dvc", "metrics", "diff", "--json")  # the last commit had none, as it says behind the JSON
    compared, _ = json.JSONDecoder().raw_decode(said)
    assert compared["reports/summary.json"]["score"]["new"] == summary["score"]


def test_dvc_draws_one_line_per_checkpoint(micro):
    shown = json.loads(run(micro, "dvc", "plots", "show", "--json", "--split"))["data"]
    parts = {title: plot["anchor_definitions"] for title, (plot,) in shown.items()}
    assert {title: part["<DVC_METRIC_TITLE>"] for title, part in parts.items()} == {title: title for title in parts}
    logs = {path.stem: json.loads(path.read_text())["log"] for path in (micro / "artifacts/training_logs").iterdir()}
    for title, column, logged in (
        ("Training loss", "train_loss", "loss"),
        ("Reward margin on validation pairs", "reward_margin", "eval_rewards/margins"),
    ):
        expected = {
            (name, row["step"], row["figures"][logged])
            for name in logs
            for row in logs[name]
            if logged in row["figures"]
        }
        rows = parts[title]["<DVC_METRIC_DATA>"]
        assert len(rows) == len(expected)
        assert {(row["series"], row["step"], row[column]) for row in rows} == expected
    assert {row["series"] for row in parts["Training loss"]["<DVC_METRIC_DATA>"]} == {"base", "sft", "ntp", "r1"}
    assert "index.html" in run(micro, "dvc", "plots", "diff")
    assert "train@r1" in run(micro, "dvc", "dag", "--mermaid")


def test_the_overview_says_what_a_change_reruns(micro):
    before = (micro / "params.yaml").read_text()
    try:
        (micro / "params.yaml").write_text(before.replace("reduction: mean", "reduction: sum"))
        shown = run(micro, sys.executable, "-m", "alignslm", "stages").replace("\N{NO-BREAK SPACE}", " ")
    finally:
        (micro / "params.yaml").write_text(before)
    marked = re.findall(r"^([✓~·]) (\S+)$", shown, re.MULTILINE)
    systems, published = ("base", "r1", "ground-truth"), ("r1", "sft", "ntp")
    again = {"check", "report", *(f"eval@{name}" for name in systems), *(f"publish@{name}" for name in published)}
    assert {name for mark, name in marked if mark != "✓"} == again
    assert {mark for mark, _ in marked} == {"✓", "~"}


def run_cache(root: Path) -> list[Path]:
    return [path for path in (root / ".dvc/cache/runs").rglob("*") if path.is_file()]


def test_an_execution_setting_runs_nothing_and_changes_no_byte(micro):
    before, known = hashes(micro), set(run_cache(micro))
    drawn_before = pl.read_parquet(micro / "artifacts/continuations/r1.parquet")
    edit(micro / "experiments/execution.yaml", {"batch_size": 7, "shard_size": 5})
    assert repro(micro) == []
    forced = ("continuations@r1", "speech@r1", "transcripts@r1", "scores@r1")
    assert repro(micro, "--force", "--single-item", *forced) == [*forced]
    drawn = pl.read_parquet(micro / "artifacts/continuations/r1.parquet")
    assert drawn.drop("logprob").equals(drawn_before.drop("logprob"))
    assert (drawn["logprob"] - drawn_before["logprob"]).abs().max() < 0.02  # two decimals are kept
    own, own_stage = "artifacts/continuations/r1.parquet", "continuations@r1"
    assert {**hashes(micro), own: ""} == {**before, own: ""}
    run(micro, "git", "checkout", "-q", "experiments/execution.yaml")
    assert repro(micro, "--force", "--single-item", own_stage, warm=False) == [own_stage]
    assert hashes(micro) == before
    for file in set(run_cache(micro)) - known:  # two outputs of equal inputs: DVC would restore either in a later test
        file.unlink()


def test_a_killed_stage_goes_on_where_it_stopped_and_ends_in_the_same_bytes(micro):
    before = hashes(micro)
    edit(micro / "experiments/execution.yaml", {"shard_size": 6})
    command = (sys.executable, "-m", "stages.speech", "r1")
    process = subprocess.Popen(
        command, cwd=micro, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    give_up = time.monotonic() + 60
    while len(list((micro / ".work").rglob("part-*.sha256"))) < 2 and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # it was at work
    said = run(micro, *command)
    assert re.search(r"speech@r1: ([2-9]|1\d) of 17 shards kept from an interrupted run", said)
    assert not list((micro / ".work").rglob("part-*"))
    run(micro, "git", "checkout", "-q", "experiments/execution.yaml")
    assert hashes(micro) == before


def test_training_killed_with_dvc_ends_in_the_same_bytes(micro):
    """A stage without shards. tests/kill_ten.py kills every kind of stage, at random."""
    before, stage = hashes(micro), "train@r1"
    process = subprocess.Popen(
        ("dvc", "repro", "--force", "--single-item", stage),
        cwd=micro,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    give_up = time.monotonic() + 120
    while not list((micro / ".work").glob("train-r1/*/sealed-*")) and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert repro(micro, "--force", "--single-item", stage, warm=False) == [stage]
    assert hashes(micro) == before
    assert not list((micro / "artifacts").rglob(".*"))


def test_a_lock_file_that_dvc_left_half_written_is_deleted_and_nothing_runs_again(micro):
    before, lock = hashes(micro), micro / "dvc.lock"
    written = lock.read_bytes()
    lock.write_bytes(written[: written.rindex(b"    outs:") + len(b"    outs:\n    -")])
    assert "'./dvc.lock' validation failed" in run(micro, "dvc", "repro", fails=True)
    lock.unlink()
    assert repro(micro) == []
    assert hashes(micro) == before


def share(micro: Path, clone: Path, *, url: str, variables: dict[str, str], options: tuple[str, ...] = ()) -> None:
    """Push everything that `micro` made to a remote, clone it, and pull."""
    run(micro, "dvc", "remote", "add", "--force", "--default", "storage", url)
    for option in options:
        run(micro, "dvc", "remote", "modify", "storage", *option.split("=", 1))
    run(micro, "git", "add", "-A")
    run(micro, "git", "commit", "-q", "--allow-empty", "-m", "made, with a remote")
    run(micro, "dvc", "push", variables=variables)
    run(micro, "git", "clone", "-q", str(micro), str(clone))
    assert not (clone / "artifacts").exists()
    run(clone, "dvc", "pull", variables=variables)
    assert hashes(clone) == hashes(micro)
    assert changed(clone) == {}
    assert (clone / "reports/index.html").exists()


@pytest.fixture(scope="module")
def shared(micro, tmp_path_factory) -> tuple[Path, Path]:
    """What a folder that serves as remote gave a fresh clone; the clone, and the folder."""
    place = tmp_path_factory.mktemp("shared")
    clone, store = place / "clone", place / "store"
    share(micro, clone, url=str(store), variables={})
    return clone, store


def eos_of(shown: str) -> set[tuple[str, bool]]:
    """Read what `dvc exp show --json` says of every experiment: its name, and a parameter of what it made."""
    commits, _ = json.JSONDecoder().raw_decode(shown)
    runs = [run for commit in commits for made in commit["experiments"] or () for run in made["revs"]]
    params = [run["data"]["params"]["params.yaml"]["data"] for run in runs]
    return {(run["name"], of["evaluation"]["include_eos"]) for run, of in zip(runs, params, strict=True)}


@pytest.mark.long
def test_a_fresh_clone_pulls_from_a_folder_and_runs_nothing_and_sweeps_are_shared(shared, tmp_path):
    clone, other, origin = shared[0], tmp_path / "other", tmp_path / "origin.git"
    assert repro(clone) == []
    run(tmp_path, "git", "clone", "-q", "--bare", str(clone), str(origin))
    run(clone, "git", "remote", "set-url", "origin", str(origin))
    queued = run(clone, "dvc", "exp", "run", "-S", "evaluation.include_eos=false,true", "--queue")
    found = re.findall(r"Queued experiment '([^']+)'", queued)
    assert len(found) == 2
    run(clone, "dvc", "exp", "run", "--run-all", "-j", "2")  # its status says nothing of those that were queued
    told = run(clone, "dvc", "queue", "status")
    assert all(re.search(rf"\b{name}\b.*\bSuccess\b", told) for name in found), told
    assert eos_of(run(clone, "dvc", "exp", "show", "--json")) == {(found[0], False), (found[1], True)}
    run(clone, "dvc", "exp", "push", "origin", found[1])
    run(tmp_path, "git", "clone", "-q", str(origin), str(other))
    run(other, "dvc", "exp", "pull", "origin", found[1])
    run(other, "dvc", "exp", "apply", found[1])
    run(other, "dvc", "pull")
    assert "include_eos: true" in (other / "params.yaml").read_text()
    assert repro(other) == []


@pytest.mark.long
def test_a_fresh_clone_pulls_from_s3_and_runs_nothing(micro, tmp_path):
    from tests.s3_server import BUCKET, CREDENTIALS, serve_s3

    with serve_s3() as endpoint:
        share(
            micro,
            tmp_path / "clone",
            url=f"s3://{BUCKET}/alignslm",
            variables=CREDENTIALS,
            options=(f"endpointurl={endpoint}",),
        )


@pytest.mark.long
def test_a_push_to_a_remote_that_keeps_versions_changes_nothing(micro, tmp_path):
    """DVC writes the files of folders into dvc.lock then; what a clone runs, and an experiment's id, stay."""
    from tests.s3_server import BUCKET, CREDENTIALS, serve_s3

    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(micro, here, symlinks=True)
    wanted = ["artifacts/checkpoints/r1", "artifacts/eval/r1", "reports/metrics.json"]
    before, plain = lock_slice(here / "dvc.lock", wanted), (here / "dvc.lock").read_text()
    with serve_s3() as endpoint:
        run(here, "dvc", "remote", "add", "--force", "--default", "storage", f"s3://{BUCKET}/versions")
        for name, value in {"endpointurl": endpoint, "version_aware": "true"}.items():
            run(here, "dvc", "remote", "modify", "storage", name, value)
        run(here, "dvc", "push", variables=CREDENTIALS)
        pushed = (here / "dvc.lock").read_text()
        assert "version_id" in pushed
        assert pushed != plain
        run(here, "git", "add", "-A")
        run(here, "git", "commit", "-q", "-m", "pushed")
        run(tmp_path, "git", "clone", "-q", str(here), str(there))
        run(there, "dvc", "pull", variables=CREDENTIALS)
        assert stages_of(run(here, "dvc", "repro", "--dry", variables=CREDENTIALS)) == []
        assert stages_of(run(there, "dvc", "repro", "--dry", variables=CREDENTIALS)) == []
    assert lock_slice(there / "dvc.lock", wanted) == before


@pytest.mark.long
def test_a_fresh_clone_that_pulls_only_what_it_needs_runs_what_a_weight_changes(shared, micro, tmp_path):
    """Stages that read folders of many outputs fetch those that DVC leaves out."""
    clone = tmp_path / "clone"
    run(micro, "git", "clone", "-q", str(micro), str(clone))
    run(clone, "dvc", "remote", "add", "--local", "--default", "folder", str(shared[1]))  # another named S3
    weight = ("-S", "weights.num_words=0.5")
    ran = repro(clone, "--pull", "--allow-missing", *weight, command=("dvc", "exp", "run"))
    assert {"samples@r1", "mos", "eval@r1", "report"} <= set(ran)
    assert set(ran) <= AFTER_PAIRS | {"eval@base", "eval@ground-truth"}  # which DVC may repeat, to the same bytes
    shown = json.loads((clone / "reports/metrics.json").read_text())["metrics"]
    assert {"base", "r1", "ground-truth"} <= {metric["model"] for metric in shown}
    assert (
        hashes(clone)["artifacts/samples/base/transcripts.parquet"]
        == hashes(micro)["artifacts/samples/base/transcripts.parquet"]
    )


def test_a_remote_that_lacks_an_object_is_told_by_its_path(micro, shared):
    clone, store = shared
    content = (micro / "artifacts/units.parquet").read_bytes()
    lost = hashlib.md5(content, usedforsecurity=False).hexdigest()  # what DVC names objects by
    (store / "files/md5" / lost[:2] / lost[2:]).unlink()
    shutil.rmtree(clone / ".dvc/cache")
    shutil.rmtree(clone / "artifacts")
    said = run(clone, "dvc", "pull", fails=True)
    assert "artifacts/units.parquet" in said
    assert "Traceback" not in said


def test_a_weight_reruns_pairs_onward_and_its_old_value_runs_nothing(micro):
    ran = repro(micro, "-S", "weights.num_words=0.5", command=("dvc", "exp", "run"))
    assert set(ran) == AFTER_PAIRS
    edit(micro / "params.yaml", {"weights": {"judge_score": 1.0, "ppl": 0.0, "auto_bleu": 0.0, "num_words": 0.0}})
    assert repro(micro) == []  # restored from the run-cache


@pytest.mark.long
def test_another_judge_reruns_scores_onward(micro):
    ran = repro(micro, "-S", "judge=trigram", command=("dvc", "exp", "run"))
    assert set(ran) - AFTER_PAIRS == {"scores@r1", "eval@base", "eval@ground-truth"}
    edit(micro / "params.yaml", {"judge": "ngram"})
    assert repro(micro) == []


@pytest.mark.long
def test_a_judge_of_ones_own_is_the_one_file_and_the_one_yaml_of_the_docs(micro):
    docs = (ROOT / "docs/extending.md").read_text()
    source, config = (re.search(rf"```{name}\n(.*?)```", docs, re.DOTALL)[1] for name in ("python", "yaml"))
    mine, choice = micro / "code/word_count.py", micro / "experiments/judge/word-count.yaml"
    mine.write_text(source)
    choice.write_text(config)
    edit(micro / "params.yaml", {"judge": "word-count"})
    copies = {f"own_code@{one}" for one in ("encoder/mfcc-kmeans", "vocoder/conv-griffinlim", "asr/char-ctc")}
    copies |= {"own_code@judge/word-count"}
    assert set(repro(micro, "scores@r1")) == copies | {"judge@word-count", "scores@r1"}
    scores = pl.read_parquet(micro / "artifacts/scores/r1.parquet").filter(status="ok")
    assert scores["judge_score"].to_list() == [5 - 4 * min(1, abs(n - 12) / 12) for n in scores["num_words"]]
    (micro / "code/other.py").write_text("x = 1\n")
    assert set(repro(micro, "scores@r1")) == copies
    mine.write_text(source.replace("5 - 4 *", "5 - 3 *"))
    assert set(repro(micro, "scores@r1")) == copies | {"judge@word-count", "scores@r1"}
    mine.write_text(source.replace("def judge(", "def score("))
    names(run(micro, "dvc", "repro", "scores@r1", fails=True), "word_count:WordCount", "judge", "docs/extending.md")
    for file in (mine, choice, micro / "code/other.py"):
        file.unlink()
    edit(micro / "params.yaml", {"judge": "ngram"})
    assert repro(micro) == []


@pytest.mark.long
def test_a_new_round_and_another_benchmark_run_what_is_theirs_and_no_more(micro):
    before = hashes(micro)
    changes = (*SECOND_ROUND, "-S", "benchmarks.storycloze=other-stories")
    ran = repro(micro, *changes, command=("dvc", "exp", "run"))
    of_the_round = ROUND_2 | {"samples@r2", "mos", "eval@r2", "publish@r2"}
    of_the_benchmark = {"benchmarks@storycloze", "eval@r1", "eval@base", "eval@ground-truth"}
    told = {"report", *PUBLISHED}  # the model card quotes the report
    assert set(ran) == of_the_round | of_the_benchmark | told
    changed = {name.split("/")[1] for name, found in hashes(micro).items() if before.get(name, found) != found}
    assert {"benchmarks", "eval"} <= changed <= {"benchmarks", "eval", "published", "mos"}
    report = json.loads((micro / "reports/metrics.json").read_text())
    assert {"r1", "r2"} <= {metric["model"] for metric in report["metrics"]}


def test_a_misspelt_parameter_stops_before_anything_runs(micro):
    said = run(micro, "dvc", "exp", "run", "-S", "+weights.num_wrods=1", fails=True)
    names(said, "weights.num_wrods", "'num_words'")
    run(micro, "git", "checkout", "-q", "params.yaml")


def test_thresholds_that_give_no_pair_end_in_one_clear_error_and_lose_nothing(micro):
    edit(micro / "params.yaml", {"selector": "thresholds"})
    before = hashes(micro)
    said = run(
        micro,
        "dvc",
        "exp",
        "run",
        "-S",
        "preferences.r1.min_chosen_score=5",
        "-S",
        "preferences.r1.max_rejected_score=1",
        fails=True,
    )
    assert "preferences.r1.min_chosen_score" in said
    assert "Traceback" not in said
    kept = ("artifacts/scores/r1.parquet", "artifacts/continuations/r1.parquet", "artifacts/checkpoints/base/")
    assert {n: h for n, h in hashes(micro).items() if n.startswith(kept)} == {
        n: h for n, h in before.items() if n.startswith(kept)
    }

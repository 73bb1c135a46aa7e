"""Every command that README.md and docs/ show can be typed, and some test runs it.

Pages are followed from top to bottom in a fresh copy of the project. What a second or two can do is done here as it
stands; what needs artifacts, a server or a remote is parsed here by its own program, and run by the test that is named.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from typer.testing import CliRunner

from alignslm.cli import app
from tests.documented import PAGES, ROOT, commands
from tests.micro import copy_project

RUNS, S3 = "test_pipeline_runs.py", "test_a_fresh_clone_pulls_from_s3_and_runs_nothing"
SWEEPS = "test_a_fresh_clone_pulls_from_a_folder_and_runs_nothing_and_sweeps_are_shared"
RAY = "test_two_actors_of_a_ray_make_the_bytes_of_one_process_though_one_is_killed"
RUN_BY = {  # a command's first words: the test that runs it on real artifacts
    "dvc repro": (RUNS, "test_nothing_changed_runs_nothing"),
    "dvc exp run -S": (RUNS, "test_another_judge_reruns_scores_onward"),
    "dvc exp run --run-all": (RUNS, SWEEPS),
    "dvc exp show": (RUNS, SWEEPS),
    "dvc exp push": (RUNS, SWEEPS),
    "dvc exp pull": (RUNS, SWEEPS),
    "dvc exp apply": (RUNS, SWEEPS),
    "dvc metrics": (RUNS, "test_dvc_shows_ten_metrics_that_fit_a_terminal"),
    "dvc plots": (RUNS, "test_dvc_draws_one_line_per_checkpoint"),
    "dvc remote add": (RUNS, S3),
    "dvc push": (RUNS, S3),
    "dvc pull": (RUNS, S3),
    "alignslm plan --probe": ("test_plan_hours.py", "test_a_probe_times_every_step_of_small_kinds"),
    "python speak.py": ("test_real_pipeline.py", "test_real_small_runs_offline_from_a_voice_to_the_report"),
    "alignslm show": ("test_cli.py", "test_show_by_words"),
    "alignslm yield": ("test_yield.py", "test_the_command_answers_for_every_combination_and_draws"),
    "alignslm trace": ("test_lineage.py", "test_the_command_prints_the_chain_and_writes_both_sounds"),
    "alignslm compare": ("test_report_compare.py", "test_the_command_prints_a_table_and_json"),
    "alignslm sweep": ("test_sweep_runs.py", "test_the_lines_of_the_page_do_not_stack"),
    "alignslm compare-seeds": ("test_report_seeds.py", "test_the_command_prints_a_table_and_json"),
    "alignslm export-zrc": (
        "test_benchmark_submission.py",
        "test_the_official_rules_find_our_figures_in_the_submission",
    ),
    "alignslm listen": ("test_listening_server.py", "test_a_killed_server_loses_no_rating_and_raters_resume"),
    "alignslm generate": ("test_play.py", "test_the_command_writes_a_folder_that_only_its_question_decides"),
    "alignslm demo": ("test_play.py", "test_a_file_is_continued_on_the_page"),
    "alignslm samples-page": ("test_report_samples.py", "test_transcripts_and_scores_are_the_tables"),
    "alignslm ingest": ("test_ingest.py", "test_the_corpus_stage_reads_what_was_written"),
    "alignslm import-preferences": (
        "test_preferences.py",
        "test_units_as_slamkit_writes_them_are_trained_on_without_sampling",
    ),
    "alignslm publish-preview": (
        "test_publishing.py",
        "test_the_parameters_in_the_repository_make_the_same_experiment_and_publish_nothing",
    ),
    "python -m tests.bench": ("test_bench.py", "test_command_prints_and_writes"),
    "alignslm init": ("test_wheel.py", "test_an_experiment_of_ones_own"),
    "RAY_ADDRESS=HOST:6379 dvc repro": ("test_engine_stages.py", RAY),
    "ray start": ("test_engine_stages.py", RAY),
    "torchrun": ("test_training_processes.py", "test_the_number_of_processes_must_be_the_one_asked_for"),
    "transformers serve": ("test_pipeline_paper.py", "test_slam_with_a_judge_behind_a_real_server"),
}
HERE = ("alignslm check", "alignslm preset", "alignslm plan", "alignslm stages", "alignslm upgrade")
SHELL = ("cd", "export", "git", "hf", "pip", "source", "sudo")


def test_commands_are_found():
    assert len(commands()) > 40
    assert {command.page for command in commands()} >= {"README.md", "daily.md", "models.md"}


def test_prompts_that_are_continued_exist():
    prompts = [found.words[2] for found in commands() if found.text.startswith("alignslm generate")]
    assert len(prompts) > 3
    assert [prompt for prompt in prompts if not (ROOT / prompt).is_file()] == []


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_a_page_can_be_followed(page, tmp_path, monkeypatch):
    copy_project(tmp_path)
    shutil.copy(tmp_path / "experiments/judge/ngram.yaml", tmp_path / "experiments/judge/trigram.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")  # only that there is one is looked at
    for command in (found for found in commands() if found.page == page):
        follow(command.words, monkeypatch)


def follow(words, monkeypatch):
    """Do what a command says, or make sure that it could be done and is done elsewhere."""
    text = " ".join(words)
    if words[0] == "make":
        assert subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, check=False).returncode == 0
    elif words[0] == "export":
        monkeypatch.setenv(*words[1].split("=", 1))
    elif words[0] == "cp":  # and edited as the page says
        Path(words[2]).write_text(Path(words[1]).read_text().replace("your-name", "somebody"))
    elif words[0] in SHELL:
        return
    elif text.startswith("alignslm ingest"):  # test_ingest.py does it; here is no speech, only the preset's name
        parse(words)
        shutil.copy("experiments/preset/tiny.yaml", f"experiments/preset/{words[words.index('--name') + 1]}.yaml")
    elif text.startswith(HERE) and "--probe" not in words:  # which takes half a minute
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0 or words[1] == "plan", f"{text}: {done.output}"  # a plan ends with 1 if things lack
    else:
        known = next((name for name in RUN_BY if text.startswith(name)), None)
        assert known, f"no test runs {text!r}"
        file, test = RUN_BY[known]
        assert f"def {test}(" in (ROOT / "tests" / file).read_text()
        parse(words)


def parse(words):
    """Let the command's own program read its arguments; apply `-S` as DVC does and check what comes out."""
    if words[0] == "alignslm":
        typer.main.get_command(app).make_context("alignslm", words[1:]).close()
    elif words[:3] == ["dvc", "exp", "run"]:
        changes = [words[at + 1] for at, word in enumerate(words) if word == "-S"]
        for sweep in get_hydra_sweeps({"params.yaml": [change for change in changes if ".yaml:" not in change]}):
            before = Path("params.yaml").read_text()
            apply_overrides("params.yaml", sweep["params.yaml"])
            done = CliRunner().invoke(app, ["check"])
            assert done.exit_code == 0, f"{shlex.join(words)}: {done.output}"
            Path("params.yaml").write_text(before)


def test_every_stage_that_a_page_names_is_there():
    named = {name for page in PAGES for name in re.findall(r"\bstages[./]([a-z]\w*)", (ROOT / page).read_text())}
    assert len(named) >= 4
    assert not [name for name in named if not (ROOT / "stages" / f"{name}.py").is_file()]

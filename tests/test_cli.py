# ruff: noqa: E501 (a message is easier to compare on one line)
"""The command line: what it prints, its exit status, and that help stays light."""

import io
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import typer.main
from typer.testing import CliRunner

from alignslm import __version__, tables
from alignslm.cli import app
from alignslm.cli.checking import compact
from alignslm.cli.overview import grouped, states
from alignslm.cli.tables import CONTENT, cell
from alignslm.cli.terminal import format_bytes
from alignslm.config.presets import preview
from alignslm.pipeline import PipelineError, Stage, read_stages, sources
from alignslm.provenance import UnitContract
from alignslm.tables import schemas
from tests.messages import names
from tests.sample_experiment import PARAMS, edit, write_experiment

REPOSITORY = Path(__file__).parent.parent
CONTRACT = UnitContract(
    encoder="mfcc-kmeans",
    revision="1",
    sample_rate_hz=16000,
    frame_rate_hz=25.0,
    layer=None,
    padding="none",
    codebook_sha256="0123456789abcdef",
    num_units=100,
    deduplicated=True,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return Path()


def run(*words):
    return CliRunner().invoke(app, words)


def spawn(*words, cwd):
    command = [sys.executable, "-m", "alignslm", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "200"}, check=False
    )


# --- as a program ---


HEAVY = ("torch", "transformers", "dvc", "polars", "pyarrow", "numpy", "sklearn")


def commands():
    """Return every command's words, those of groups included."""
    group = typer.main.get_command(app)
    names = group.list_commands(None)
    loaded = {name: group.resolve_command(None, [name])[1] for name in names}
    return [
        word
        for name in names
        for word in [name, *(f"{name} {below}" for below in getattr(loaded[name], "commands", {}))]
    ]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["check"], ["preset"]])
def test_light_commands_import_nothing_heavy(tmp_path, words):
    write_experiment(tmp_path)
    for trainer in (tmp_path / "experiments/trainer").iterdir():  # modules that are named are looked for in the model
        trainer.write_text(re.sub(r"target_modules: \[.*?\]", "target_modules: all-linear", trainer.read_text()))
    code = (
        "import sys; from alignslm.cli import app\n"
        f"try: app({words!r})\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.stderr, result.returncode) == ("[]\n", 0)


def test_no_command_imports_anything_heavy_for_its_help():
    code = (
        "import sys; from typer.testing import CliRunner; from alignslm.cli import app\n"
        f"for words in {[words.split() for words in commands()]!r}:\n"
        "    assert CliRunner().invoke(app, [*words, '--help']).exit_code == 0, words\n"
        f"    assert not {{*{HEAVY!r}}} & {{*sys.modules}}, words"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize("words", commands())
def test_help_fills_its_lines(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(app, [*words.split(), "--help"]).stdout.partition("╭")[0].splitlines()
    for line, after in pairwise(line.strip() for line in lines):
        if line and after:  # one paragraph: the next word did not fit
            assert len(f"{line} {after.split()[0]}") > 78


def test_help_of_all_imports_no_command():
    code = (
        "import sys; from alignslm.cli import Commands, app\n"
        "try: app(['--help'])\n"
        "finally: assert not {path.partition(':')[0] for p in Commands.panels.values() for path in p.values()} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


OUTSIDE = [
    *(
        "preset",
        "check",
        "plan",
        "stages",
        "upgrade",
        "sweep judge=ngram",
        "ingest x",
        "import-preferences x --name y",
        "times",
        "show pairs",
        "trace x",
    ),
    *("compare a b", "generate x.wav", "demo", "listen build mmos --raters 2", "samples-page"),
    *("publish-preview r1 x", "export-zrc r1 x", "yield"),
]


@pytest.mark.parametrize("words", OUTSIDE)
def test_every_command_says_that_a_folder_is_not_an_experiment(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = run(*words.split())
    assert (result.exit_code, result.stdout) == (1, "")
    names(result.stderr, tmp_path, "params.yaml", "alignslm init FOLDER", "--root")
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_tried_outside_an_experiment():
    assert {words.split()[0] for words in OUTSIDE} == {word for word in commands() if " " not in word} - {
        "init",
        "compare-seeds",  # both are given the experiments
        "compare-ways",
    }


def test_a_misspelled_command_is_corrected():
    result = run("shov")
    assert result.exit_code == 2
    names(result.output, "shov", "show")


def test_faults_are_told_without_a_traceback(tmp_path):
    write_experiment(tmp_path)
    edit(tmp_path / "params.yaml", ("judge: story  ", "judge: storj  "))
    result = spawn("check", cwd=tmp_path)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    names(line, "params.yaml:8: judge", "experiments/judge/storj.yaml", "'story'", "ngram, story")
    assert result.returncode == 1


def test_version():
    assert run("--version").stdout == f"alignslm {__version__}\n"


def test_help_names_every_command_and_teaches_by_example():
    text = run("--help").stdout
    assert all(word in text for word in [*commands(), "dvc repro"] if " " not in word or "dvc" in word)
    assert "alignslm show pairs r1" in run("show", "--help").stdout


# --- check ---


def test_check_prints_the_resolved_experiment(root):
    result = run("check")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert (
        "corpus world seed=0 stories={train=100 valid=10 dev=0 test=20} mismatched_fraction=0.5 mismatched_same_pronoun=0.8 num_texts=50"
        in ("\n".join(lines))
    )
    assert "benchmarks.swuggy swuggy seed=0 pairs=10" in lines
    assert "systems.ground-truth source=corpus/utterances temperature_scale=1 best_of=-" in lines
    assert lines[-1] == "params.yaml and its configs are valid"


def test_check_prints_warnings_and_succeeds(root):
    edit(root / "params.yaml", ("judge: story  ", "judge: ngram  "))
    result = run("check")
    assert result.exit_code == 0
    names(result.stdout, "warning", "heldout_judge", "ngram")


def test_check_lists_execution_faults_beside_the_others(root):
    edit(root / "params.yaml", ("num_continuations: 5", "num_continuations: 1"))
    edit(root / "experiments/execution.yaml", ("device: cpu", "device: gpu"))
    result = run("check")
    assert result.exit_code == 1
    for line, facts in zip(
        result.stderr.splitlines(),
        [
            ("experiments/execution.yaml:1: device", "auto", "'cpu'", "cuda", "gpu"),
            ("params.yaml:25: sampling.num_continuations", "2", "1"),
        ],
        strict=True,
    ):
        names(line, *facts)


def test_check_all_reads_what_is_not_chosen(root):
    (root / "experiments/judge/spare.yaml").write_text("kind: ngram\n")
    (root / "experiments/preset/spare.yaml").write_text("description: 1\nset: {}\n")
    assert run("check").exit_code == 0
    result = run("check", "--all")
    assert result.exit_code == 1
    for line, facts in zip(
        result.stderr.splitlines(),
        [
            ("experiments/judge/spare.yaml:1: calibration", "missing"),
            ("experiments/judge/spare.yaml:1: discount", "missing"),
            ("experiments/judge/spare.yaml:1: order", "missing"),
            ("experiments/preset/spare.yaml:1: description", "text", "1"),
        ],
        strict=True,
    ):
        names(line, *facts)


def test_compact():
    assert compact({"kind": "k", "a": 1, "b": {"c": [1, "x"], "d": None}, "e": True}, outermost=True) == (
        "a=1  b={c=1,x  d=-}  e=yes"
    )


# --- preset ---


def test_preset_lists_and_writes(root):
    listed = [" ".join(line.split()) for line in run("preset").stdout.splitlines()]
    assert "swap judges swapped" in listed
    assert run("preset", "swap").stdout.splitlines() == [
        "judge: story -> ngram",
        "heldout_judge: ngram -> story",
        "swap: 2 keys changed",
    ]
    assert run("preset", "swap").stdout == "swap: already so, nothing changed\n"
    assert "judge: ngram          # trains" in Path("params.yaml").read_text()


def test_preset_that_does_not_fit(root):
    result = run("preset", "broken")
    assert result.exit_code == 1
    names(result.stderr, "ngram, story", "params.yaml", "broken:8: judge", "experiments/judge/gpt4o.yaml")
    assert Path("params.yaml").read_text() == PARAMS


# --- show ---


def flac(seconds):
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(int(16000 * seconds), np.int16), 16000, format="FLAC")
    return stream.getvalue()


@pytest.fixture
def artifacts(root):
    pairs = pl.DataFrame(
        {
            "continuation_id": ["a", "b", "c"],
            "prompt_id": ["p", "p", "q"],
            "sample_index": [0, 1, 0],
            "judge_score": [4.25, None, 1.5],
            "ppl": [2.0, None, 123456.0],
            "auto_bleu": [0.0, None, 0.5],
            "num_words": [4, 0, 9],
            "status": ["ok", "empty", "ok"],
        }
    )
    tables.write(pairs, tables.SCORES, root / "artifacts/scores/r1.parquet")
    tables.write(pairs, tables.SCORES, root / "artifacts/scores/r2.parquet")
    units = pl.DataFrame({"utterance_id": ["u"], "split": ["train"], "units": [list(range(10))], "durations": [[1, 2]]})
    tables.write(units, tables.ENCODED, root / "artifacts/units.parquet", CONTRACT)
    speech = [
        pl.DataFrame(
            {
                "continuation_id": [name],
                "audio": [{"bytes": flac(1), "path": None}],
                "num_samples": [16000],
                "sample_rate_hz": [16000],
                "status": ["ok"],
            },
            schema_overrides=dict(tables.SPEECH.schema),
        )
        for name in ("a", "b")
    ]
    tables.write_shards(iter(speech), tables.SPEECH, root / "artifacts/speech/r1")
    return root / "artifacts"


def shown(*words):
    result = run("show", *words)
    assert result.exit_code == 0, result.stderr
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_show_by_words(artifacts):
    assert shown("scores", "r1") == [
        "artifacts/scores/r1.parquet: scores v2, 3 rows",
        "continuation_id prompt_id sample_index judge_score ppl auto_bleu num_words status",
        "a p 0 4.25 2 0 4 ok",
        "b p 1 - - - 0 empty",
        "c q 0 1.5 1.235e+05 0.5 9 ok",
    ]


def test_show_rows_columns_where(artifacts):
    path = "artifacts/scores/r2.parquet"
    assert shown(path, "-n", "1", "-c", "status,sample_index", "--where", "num_words < 8 AND prompt_id = 'p'") == [
        "artifacts/scores/r2.parquet: scores v2, 3 rows, 2 kept",
        "status sample_index",
        "ok 0",
    ]


def test_show_lists_audio_and_contract(artifacts):
    assert shown("units") == [
        "artifacts/units.parquet: units v1, mfcc-kmeans (100 units at 25 Hz, codebook 01234567), 1 rows",
        "utterance_id split units durations",
        "u train 0 1 2 3 4 5 ... (10) 1 2",
    ]
    lines = shown("speech", "r1")
    assert lines[0] == "artifacts/speech/r1: speech v1, 2 rows"
    assert lines[2] == f"a {format_bytes(len(flac(1)))} 16000 16000 ok"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["scores"], ("scores", "2", "artifacts/scores/r1.parquet", "artifacts/scores/r2.parquet")),
        (["score", "r1"], ("score r1", "scores", "artifacts/scores/r1.parquet", "artifacts/scores/r2.parquet", "artifacts/speech/r1", "artifacts/units.parquet")),
        (["units", "-c", "unit"], ("artifacts/units.parquet", "'unit'", "utterance_id, split, units, durations")),
    ],
)  # fmt: skip
def test_show_tells_what_there_is(artifacts, words, expected):
    result = run("show", *words)
    assert result.exit_code == 1
    names(result.stderr, *expected)


@pytest.mark.parametrize("where", ["num_word > 3", "num_words >", "num_words"])
def test_show_tells_a_wrong_condition(artifacts, where):
    result = run("show", "scores", "r1", "--where", where)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"artifacts/scores/r1.parquet cannot be shown (--where {where!r}): ")
    assert len(result.stderr.splitlines()) == 1


def test_show_before_anything_was_made(root):
    for words in (["pairs", "r1"], []):
        result = run("show", *words)
        assert result.exit_code == 1
        names(result.stderr, "artifacts", *(["'pairs r1'"] if words else []), "dvc repro")


def test_a_bare_show_lists_tables_that_show_then_finds(artifacts):
    """Also `continuations r1`, whose words are those of `samples r1 continuations`, too."""
    row = ("p-0", "p", 0, "m", 1, [1, 2], "eos", -1.0)
    drawn = pl.DataFrame([row], schema=dict(tables.CONTINUATIONS.schema), orient="row")
    for path in ("continuations/r1.parquet", "samples/r1/continuations.parquet"):
        tables.write(drawn, tables.CONTINUATIONS, artifacts / path, CONTRACT)
    listed = shown()
    assert listed[0] == "alignslm show rows content"
    assert listed[1:] == [
        f"{words} {rows} {CONTENT[table]}"
        for words, rows, table in (
            ("continuations r1", 1, "continuations"),
            ("samples r1 continuations", 1, "continuations"),
            ("scores r1", 3, "scores"),
            ("scores r2", 3, "scores"),
            ("speech r1", 2, "speech"),
            ("units", 1, "units"),
        )
    ]
    for line in listed[1:]:
        words = line[: re.search(r" \d+ ", line).start()].split()
        path = artifacts.joinpath(*words)
        assert shown(*words)[0].startswith(
            (f"artifacts/{path.relative_to(artifacts)}.parquet: ", f"artifacts/{path.relative_to(artifacts)}: ")
        )


def test_the_content_of_every_table_is_told():
    known = [table.name for table in vars(schemas).values() if isinstance(table, schemas.Table)]
    assert sorted(CONTENT) == sorted(known)


def test_cells():
    assert cell(None) == "-"
    assert cell({"bytes": None, "path": None}) == "no audio"
    assert (cell({"bytes": bytes(1000), "path": None}), cell(bytes(123456))) == ("1.0 kB", "123.5 kB")
    assert (cell([1, 2]), cell(True), cell(7), cell(0.25)) == ("1 2", "True", "7", "0.25")


# --- overview ---

PIPELINE = """\
vars:
  - extra: {models: [m1, m2]}
stages:
  report:
    deps: [artifacts/eval/r1.json, artifacts/eval/r2.json]
    metrics:
      - reports/metrics.json: {cache: false}
  corpus:
    desc: Speech of ${corpus}
    outs:
      - artifacts/${corpus}/speech
  rounds:
    foreach: ${preferences}
    do:
      desc: One round
      deps:
        - artifacts/world/speech/part-0.parquet
        - artifacts/checkpoints/${item.sampled_from}
      outs:
        - artifacts/checkpoints/${key}
  base:
    outs: [artifacts/checkpoints/base]
  eval:
    foreach: [r1, r2]
    do:
      deps:
        - artifacts/checkpoints/${item}
      plots:
        - artifacts/eval/${item}.json
  grid:
    foreach: ${extra.models}
    do:
      outs:
        - grid/${item}
"""


def test_read_stages_expands_and_orders(root):
    (root / "dvc.yaml").write_text(
        PIPELINE.replace("[artifacts/checkpoints/base]", "\n      - artifacts/checkpoints/base")
    )
    stages = read_stages(root)
    assert [stage.name for stage in stages] == [
        *("corpus", "base", "rounds@r1", "rounds@r2", "eval@r1", "eval@r2", "report"),
        *("grid@m1", "grid@m2"),
    ]
    by_name = {stage.name: stage for stage in stages}
    assert by_name["corpus"].outs == ("artifacts/world/speech",)
    assert by_name["corpus"].description == "Speech of world"
    assert by_name["rounds@r2"].deps[1] == "artifacts/checkpoints/r1"
    assert [source.name for source in sources(by_name["rounds@r1"], stages)] == ["corpus", "base"]
    assert by_name["grid@m2"].outs == ("grid/m2",)


def test_overview_marks_what_exists(root, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "artifacts/checkpoints/base").mkdir(parents=True)
    result = run("stages")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "✓ base artifacts/checkpoints/base" in shown
    assert "One round · rounds@r1 from corpus, base artifacts/checkpoints/r1" in shown
    assert "· rounds@r2 from corpus, rounds@r1 artifacts/checkpoints/r2" in shown
    assert "· report from eval@* reports/metrics.json" in shown
    names(shown, "9 stages: 1 done", "0 changed", "8 to run", "dvc status")  # which fails: no repository of DVC


def test_overview_draws_checkpoints_under_the_preferences_they_were_trained_on(tmp_path, monkeypatch):
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(preview("embedded-full", REPOSITORY).text)
    monkeypatch.chdir(tmp_path)
    lines = run("stages").stdout.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("checkpoints"))
    assert [line.removeprefix("checkpoints").strip() for line in lines[start : start + 7]] == [
        "· base (llama-tiny-full)",
        "├── · preferences r1",
        "│   ├── · r1 (dpo-nll, from base)",
        "│   │   └── · preferences r2",
        "│   │       └── · r2 (dpo-nll, from r1)",
        "│   └── · sft (sft, from base)",
        "└── · ntp (ntp-full, from base)",
    ]
    names("\n".join(lines), "systems      · base  · sft  · base-low-temp  · ntp  · r1  · r2  · ground-truth")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_overview_fits_the_terminal_and_breaks_no_path(root, monkeypatch, width):
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("stages").stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    words = {word for line in lines for word in line.split()}
    paths = {path for stage in read_stages(root) for path in stage.outs}
    assert paths <= words
    if width == 200:
        assert any(len(paths & set(line.split())) > 1 for line in lines)  # stages side by side


def test_a_change_reaches_what_comes_after_it_but_not_through_the_check(tmp_path):
    stages = [
        Stage("check", "", (), ("checked",)),
        Stage("corpus", "", ("checked",), ("corpus",)),
        Stage("pairs@r1", "", ("corpus",), ("pairs",)),
        Stage("train@r1", "", ("pairs",), ("r1",)),
        Stage("publish@r1", "", ("r1",), ("published",)),
    ]
    for name in ("checked", "corpus", "pairs", "r1"):
        (tmp_path / name).touch()
    expected = {"check": "changed", "corpus": "done", "pairs@r1": "changed", "train@r1": "changed"}
    assert states(stages, ["check", "pairs@r1"], tmp_path) == {**expected, "publish@r1": "to run"}


def test_descriptions_fit_a_line_of_dvc_stage_list():
    stages = read_stages(REPOSITORY)
    assert max(len(stage.name) for stage in stages) + 2 + max(len(stage.description) for stage in stages) <= 80


def test_grouped():
    stages = [Stage(name, "", (), ()) for name in ("a", "b@1", "b@2", "c@1")]
    assert grouped(stages, stages) == "a, b@*, c@1"
    assert grouped(stages[:2], stages) == "a, b@1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages:\n  a:\n    outs:\n      - x/${no.such}\n", ("'a'", "dvc.yaml", "${no.such}", "params.yaml")),
        ("stages:\n  a:\n    deps: [y]\n    outs: [x]\n  b:\n    deps: [x]\n    outs: [y]\n", ("a, b", "dvc.yaml")),
        ("stage: {}\n", ("stages", "dvc.yaml")),
    ],
)  # fmt: skip
def test_pipeline_that_cannot_be_followed(root, text, expected):
    (root / "dvc.yaml").write_text(text)
    with pytest.raises(PipelineError) as caught:
        read_stages(root)
    names(caught.value, *expected)
    assert run("stages").exit_code == 1


def test_the_repository_has_an_overview():
    two_rounds = preview("embedded-full", REPOSITORY).text
    names = [stage.name for stage in read_stages(REPOSITORY, params=two_rounds)]
    assert names[0] == "check"
    behind = set(names[names.index("report") + 1 :])
    assert behind == {f"publish@{name}" for name in ("r1", "r2", "sft", "ntp")}  # nothing else waits for the report
    assert names.index("scores@r1") < names.index("pairs@r1") < names.index("continuations@r2")


def test_columns_that_do_not_fit_are_printed_below_each_other(tmp_path, monkeypatch):
    frame = pl.DataFrame([("t1", "word " * 12, "c"), ("t2", "p", "c")], schema=dict(tables.TEXTS.schema), orient="row")
    tables.write(frame, tables.TEXTS, tmp_path / "texts.parquet")
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("show", str(tmp_path / "texts.parquet")).stdout.splitlines()[1:]
    assert [line.rstrip() for line in lines] == [
        "row 0",
        "  text_id            t1",
        "  prompt_text        " + ("word " * 12).rstrip(),
        "  continuation_text  c",
        "row 1",
        "  text_id            t2",
        "  prompt_text        p",
        "  continuation_text  c",
    ]
    monkeypatch.setenv("COLUMNS", "120")
    lines = run("show", str(tmp_path / "texts.parquet")).stdout.splitlines()[1:]
    assert lines[0].split() == ["text_id", "prompt_text", "continuation_text"]

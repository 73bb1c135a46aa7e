# ruff: noqa: E501 (a fault and its facts are easier to compare on one line)
"""Files of any size, depth and content are read or refused in a moment: by one line that names file and place."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignslm.cli.upgrading import _made
from alignslm.config.document import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse_document, read_document
from alignslm.config.loading import load_experiment
from alignslm.config.problems import ConfigError
from alignslm.integrity import LockError
from alignslm.plan.missing import workspace_faults
from alignslm.publishing.lineage import lock_slice
from tests.messages import names
from tests.sample_experiment import edit, write_experiment

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "facts"),
    [
        (BOMB, 6, (MAX_NODES, "aliases")),
        (f"a: {'[' * 500}{']' * 500}\n", 1, (MAX_DEPTH,)),
        (f"a: {'[' * 200_000}\n", 1, (MAX_DEPTH,)),
        (f"a: 1\nb: {'{a: ' * 500}\n", 2, (MAX_DEPTH,)),
        ("a: 1\n" + "".join(f"{' ' * depth}a:\n" for depth in range(400)), None, (MAX_DEPTH,)),
        (f"a: 1\nb: {'9' * 5000}\n", 2, ("b", "40", "5000")),
        (f"a: 1\nb: 0.{'9' * 5000}\n", 2, ("b", "40", "5002")),
        (f"a: {'x' * 20_000}\n", 1, ("a", "10000", "20000")),
        (f"{'x' * 300}: 1\n", 1, ("key", "100")),
        ('a: "x\\0y"\n', 1, ("a", "\\x00")),
        ('a: 1\n"\\e[2J": 1\n', 2, ("key", "\\x1b")),
        ("a: 1\nb: -_\n", 2, ("b", "-_")),
        ("a: !!bool maybe\n", 1, ("bool",)),
        ("a: !!int x\n", 1, ("int",)),
        ("a: 1\nb: !mine x\n", 2, ("!mine",)),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> theirs\n", 2, ("<<<<<<<", "merge")),
        ("a: 1\n\nb: \ud800\n", 3, ("xd800",)),
        ("a: {<<: 5}\n", 1, ("merging",)),
    ],
)
def test_hostile_text_is_answered_with_its_line(text, line, facts):
    found = parse_document(text, "p.yaml")
    assert isinstance(found, list)
    names(found[0], "p.yaml", *facts)
    assert found[0].line is not None
    assert line in {None, found[0].line}
    assert len(str(found[0])) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("a: 2001-99-99\nb: 1:30\nc: =\n", {"a": "2001-99-99", "b": "1:30", "c": "="}),
        ("\ufeffa: 0x1F\nb: 1_000\nc: 0o17\n", {"a": 31, "b": 1000, "c": 15}),
        ("a: <<<<<<<x\n", {"a": "<<<<<<<x"}),
    ],
)
def test_text_that_is_odd_but_means_something(text, value):
    found = parse_document(text, "p.yaml")
    assert not isinstance(found, list)
    assert found.data == value


def test_large_and_undecodable_files_are_not_read(tmp_path):
    (tmp_path / "big.yaml").write_bytes(b"a: 1\n" * (MAX_BYTES // 5 + 1))
    (fault,) = read_document(tmp_path / "big.yaml")
    names(fault, tmp_path / "big.yaml", MAX_BYTES)
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: Bär\n".encode("latin-1"))
    (fault,) = read_document(tmp_path / "latin.yaml")
    names(fault, "latin.yaml:2", "UTF-8", "0xe4")


@pytest.mark.parametrize(
    ("file", "old", "new", "facts"),
    [
        ("params.yaml", "  num_continuations: 2", "  num_continuations: 100000000000000000000000000", ("evaluation.num_continuations", "10000")),
        ("params.yaml", "temperature: 0.8", "temperature: 1.0e-300", ("sampling.temperature", "0.0001", "1e-300")),
        ("params.yaml", "temperature: 0.8", "temperature: 1.0e+300", ("sampling.temperature", "100", "1e+300")),
        ("params.yaml", "  judge_score: 1.0", "  judge_score: 1.0e+308", ("weights.judge_score", "1e+09", "1e+308")),
        ("params.yaml", "  judge_score: 1.0", "  judge_score: 1.0e+999", ("weights.judge_score", "finite", "inf")),
        ("experiments/lm/llama.yaml", "hidden_size: 64", "hidden_size: 1000000000000", ("hidden_size", "1.04858e+06")),
        ("experiments/lm/llama.yaml", "num_hidden_layers: 2", "num_hidden_layers: 1000000", ("num_hidden_layers", "10000")),
        ("experiments/trainer/dpo.yaml", "beta: 0.1", "beta: 1.0e+300", ("beta", "1e+09")),
        ("params.yaml", "judge: story  ", f"judge: {'x' * 300}  ", ("judge", "{0,63}")),
        ("params.yaml", "  r1:", f"  {'x' * 99}:", ("preferences", "{0,39}")),
    ],
)  # fmt: skip
def test_values_beyond_all_use_are_refused(tmp_path, monkeypatch, file, old, new, facts):
    monkeypatch.chdir(write_experiment(tmp_path))
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_experiment()
    names(caught.value, file, *facts)


LOCK = "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a: {cmd: x}\n=======\n  b: {cmd: y}\n>>>>>>> theirs\n"


def test_a_lock_with_conflict_markers_is_told_wherever_it_is_read(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.lock").write_text(LOCK)
    for read in (lambda: _made(tmp_path), lambda: lock_slice(tmp_path / "dvc.lock", ["a"])):
        with pytest.raises(LockError) as caught:
            read()
        names(caught.value, tmp_path / "dvc.lock", "line 4")
    for text in (LOCK, "schema: '2.0'\n", "[" * 500):
        (tmp_path / "dvc.lock").write_text(text)
        (told,) = [fault for fault in workspace_faults(tmp_path) if "dvc.lock" in fault]
        names(told, tmp_path / "dvc.lock", "git")


@pytest.mark.parametrize("depth", ["[", "{a: ", "- "])
def test_no_depth_of_params_ends_the_process_that_reads_the_pipeline(tmp_path, depth):
    """In a process of its own: PyYAML's C code has no limit, and the system then kills it."""
    write_experiment(tmp_path)
    shutil.copy(Path(__file__).parent.parent / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(f"a: 1\nb:\n  {depth * 100_000}\n"[: MAX_BYTES - 1])
    ran = subprocess.run([sys.executable, "-m", "alignslm", "stages", "-C", str(tmp_path)], capture_output=True, text=True, check=False)  # fmt: skip
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    names(ran.stderr, "params.yaml:3")


def test_a_name_that_no_file_can_have_is_told(tmp_path):
    write_experiment(tmp_path)
    edit(tmp_path / "params.yaml", ("judge: story  ", "judge: ngram  "))
    for words in (["check", "-C", "x" * 300], ["show", "y" * 5000], ["preset", b"\xff\xfe"]):
        ran = subprocess.run([sys.executable, "-m", "alignslm", *words], cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
        assert ran.returncode in {1, 2}, words
        assert "Traceback" not in ran.stderr, ran.stderr

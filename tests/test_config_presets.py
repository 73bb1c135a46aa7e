"""Presets change the lines they must and no other byte; a preset that does not fit changes nothing."""

import difflib
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from alignslm.config import yaml_edit
from alignslm.config.document import parse_document
from alignslm.config.loading import load_experiment
from alignslm.config.presets import Change, apply_preset, changes, list_presets
from alignslm.config.problems import ConfigError
from tests.messages import names
from tests.sample_experiment import PARAMS, edit, write_experiment

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    return Path()


def changed_lines(before, after):
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


def load(text):
    return YAML(typ="safe", pure=True).load(text)


def test_only_the_changed_lines_differ_and_comments_keep_their_column(root):
    listed = apply_preset("swap", root)
    assert listed == [Change(("judge",), "story", "ngram"), Change(("heldout_judge",), "ngram", "story")]
    assert changed_lines(PARAMS, Path("params.yaml").read_text()) == [
        "- judge: story          # trains",
        "+ judge: ngram          # trains",
        "- heldout_judge: ngram  # reports",
        "+ heldout_judge: story  # reports",
    ]


def test_an_added_round_stands_before_the_comment_that_follows_the_rounds(root):
    apply_preset("longer", root)
    changed = changed_lines(PARAMS, Path("params.yaml").read_text())
    assert changed[:6] == [
        "+   r3:",
        "+     sampled_from: r2",
        "+     min_chosen_score: 4.2",
        "+     max_rejected_score: 3.2",
        "+     min_margin: 1.0",
        "+     max_auto_bleu: 0.1",
    ]
    assert list(load_experiment(root).params.rounds) == ["r1", "r2", "r3"]


def test_a_preset_names_rounds_whole(root):
    listed = apply_preset("shorter", root)
    assert {(change.key, change.removed) for change in listed} == {
        (("preferences", "r2"), True),
        (("checkpoints", "r2"), True),
        (("checkpoints", "sft"), True),
        (("checkpoints", "ntp"), True),
        (("systems", "r2"), True),
    }
    assert all(line.startswith("-") for line in changed_lines(PARAMS, Path("params.yaml").read_text()))


def test_a_preset_twice_changes_nothing_more(root):
    apply_preset("longer", root)
    before = Path("params.yaml").read_bytes()
    assert apply_preset("longer", root) == []
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "broken",
            ("params.yaml", "broken:8: judge", "experiments/judge/gpt4o.yaml", "ngram, story"),
        ),
        (
            "brokn",
            ("experiments/preset/brokn.yaml", "'broken'", "broken, longer, shorter, swap"),
        ),
    ],
)
def test_a_preset_that_does_not_fit_leaves_the_file_alone(root, name, expected):
    with pytest.raises(ConfigError) as caught:
        apply_preset(name, root)
    names(caught.value, *expected)
    assert Path("params.yaml").read_text() == PARAMS


def test_an_unknown_key_in_a_preset_is_refused(root):
    edit(root / "experiments/preset/swap.yaml", ("judge: ngram,", "jugde: ngram,"))
    with pytest.raises(ConfigError) as raised:
        apply_preset("swap", root)
    names(raised.value, "params.yaml", "preset swap", "jugde", "unknown")
    assert Path("params.yaml").read_text() == PARAMS


def test_list_presets_tells_every_fault(root):
    edit(root / "experiments/preset/swap.yaml", ("description", "descrption_"))
    edit(root / "experiments/preset/longer.yaml", ("set:", "sets:"))
    with pytest.raises(ConfigError) as caught:
        list_presets(root)
    for line, facts in zip(
        [str(fault) for fault in caught.value.faults],
        [
            ("experiments/preset/longer.yaml:1: set", "missing"),
            ("experiments/preset/longer.yaml:2: sets", "unknown", "'set'"),
            ("experiments/preset/swap.yaml:1: description", "missing"),
            ("experiments/preset/swap.yaml:1: descrption_", "unknown", "'description'"),
        ],
        strict=True,
    ):
        names(line, *facts)


@pytest.mark.parametrize("name", list(list_presets(REPOSITORY)))
def test_tiny_undoes_every_preset_of_the_repository(tmp_path, name):
    """Byte for byte, unless the preset removes a round or control: the comments in it do not come back."""
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    before = (tmp_path / "params.yaml").read_text()
    changed = apply_preset(name, tmp_path)
    assert bool(changed) == (name != "tiny")
    apply_preset("tiny", tmp_path)
    after = (tmp_path / "params.yaml").read_text()
    assert load(after) == load(before)
    assert after == before or any(change.removed for change in changed)


def test_tiny_names_every_value():
    tiny = list_presets(REPOSITORY)["tiny"].set
    document = parse_document((REPOSITORY / "params.yaml").read_text(), "params.yaml")
    assert document.data == tiny


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        ("a: 1  # one\n", ("a",), 12345, "a: 12345  # one\n"),
        ("a: 100      # one\n", ("a",), 1, "a: 1        # one\n"),
        ("a: x#y\n", ("a",), "z", "a: z\n"),
        ('a: "x"   # q\n', ("a",), "on off", "a: on off   # q\n".replace("   #", "  #")),
        ("a:\nb: 1\n", ("a",), 3, "a: 3\nb: 1\n"),
        ("a:\nb: 1", ("b",), True, "a:\nb: true"),
        ("a: {b: 1, c: [1, 2]}  # f\n", ("a", "c"), None, "a: {b: 1, c: null}  # f\n"),
        ("a: 1\n", ("a",), "true", "a: 'true'\n"),
    ],
)
def test_replace_value(text, path, value, expected):
    assert yaml_edit.replace_value(text, path, value) == expected


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        ("a:\n  b: 1", ("a", "c"), 2, "a:\n  b: 1\n  c: 2\n"),
        ("a:\n    b: 1  # b\n\n# z\nz: 1\n", ("a", "c"), 2, "a:\n    b: 1  # b\n    c: 2\n\n# z\nz: 1\n"),
        ("a: {}\n", ("a", "c"), {"d": 2}, "a: {c: {d: 2}}\n"),
        ("a: {b: 1} # b\n", ("a", "c"), 2, "a: {b: 1, c: 2} # b\n"),
        ("a:\n  - 1\n  - 2\n\n# z\n", ("c",), 2, "a:\n  - 1\n  - 2\nc: 2\n\n# z\n"),
    ],
)
def test_insert_key(text, path, value, expected):
    assert yaml_edit.insert_key(text, path, value) == expected


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("a: 1\nb: 2  # two\nc: 3\n", ("b",), "a: 1\nc: 3\n"),
        ("a:\n  b:\n    c: 1\n    d: 2\n\n  # e\n  e: 3\n", ("a", "b"), "a:\n\n  # e\n  e: 3\n"),
        ("a: {b: 1, c: 2} # x\n", ("a", "b"), "a: {c: 2} # x\n"),
        ("a: {b: 1} # x\n", ("a", "b"), "a: {} # x\n"),
        ("a:\n  b: 1 # x\nc: 2\n", ("a", "b"), "a:\n  {} # x\nc: 2\n"),
    ],
)
def test_delete_key(text, path, expected):
    assert yaml_edit.delete_key(text, path) == expected


keys = st.text("abcdef", min_size=1, max_size=3)
texts = st.sampled_from(["x", "true", "1e-6", "a: b", "# no", "", "ü", "'", "null"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
trees = st.dictionaries(keys, scalars | st.dictionaries(keys, scalars, min_size=1), min_size=1)


@settings(max_examples=60, deadline=None)
@given(trees, trees)
def test_edits_reach_any_wanted_mapping(current, wanted):
    """Property: applying `changes` to the text of one mapping gives a text that holds every wanted value."""
    blocks = {key: value for key, value in current.items() if not (isinstance(value, dict) and key in wanted)}
    current = blocks | {key: value for key, value in current.items() if isinstance(wanted.get(key), dict)}
    current = current or {"zz": 1}
    text = "# top\n" + yaml_edit._block(current, 0)
    for change in changes(current, wanted):
        edit_text = yaml_edit.insert_key if change.added else yaml_edit.replace_value
        text = edit_text(text, change.key, change.new)
    assert changes(load(text), wanted) == []
    assert text.startswith("# top\n")
    assert load(text).keys() == current.keys() | wanted.keys()

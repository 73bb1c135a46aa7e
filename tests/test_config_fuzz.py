"""Two hundred mutated configurations: each is accepted, or answered by errors that name file and line, in a moment."""

import random
import re
import shutil
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.problems import ConfigError
from alignslm.pipeline import PipelineError, read_stages
from alignslm.plan.memory import memory_of
from alignslm.plan.workload import volume_of
from tests.sample_experiment import write_experiment

CASES = 200
SECONDS = 20  # some hundred times what the slowest takes: only what never ends is meant
NUMBERS = ["0", "-1", "1e308", "-1e-300", "1e26", "9" * 5000, ".inf", ".nan", "1.5", "0x10", "1_0", "2147483648", "-_"]
TEXTS = ["null", "true", "~", "''", "'x'", "a" * 300]
TEXTS += ['"\\0"', '"\\e[2J"', "../../etc/passwd", "*a", "&a x", "!!int x", "é", "- 1", "{}"]
ODD_BYTES = [b"\xff\xfe", b"\0", b"\t", b"<<<<<<< HEAD\n", b"\xef\xbb\xbf", b"---\n"]
NESTS = ["[" * 500, "{a: " * 500, "[[[1]]]", "{a: {b: 1}}", "[1, 2, 3]"]


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value below a mapping or list."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed_value(text: str, dice: random.Random) -> str:
    """Put something else in the place of one scalar."""
    values = list(re.finditer(r"(?<=: )[^\s{\[,}\]]+", text))
    found = dice.choice(values)
    return text[: found.start()] + dice.choice([*NUMBERS, *TEXTS, *NESTS]) + text[found.end() :]


def changed_structure(text: str, dice: random.Random) -> str:
    """Remove, double or rename one key wherever it stands, or put it on another level."""
    data = YAML(typ="safe", pure=True).load(text)
    *above, last = dice.choice(list(places(data)))
    inner = data
    for step in above:
        inner = inner[step]
    match dice.randrange(4):
        case 0:
            del inner[last]
        case 1 if isinstance(inner, dict):
            inner["x" * dice.choice([1, 40, 300])] = inner.pop(last)
        case 2:
            inner[last] = data
            return f"a: &a {{b: *a}}\n{text}"
        case _:
            inner[last] = {"kind": inner[last]} if dice.random() < 0.5 else [inner[last]]
    stream = StringIO()
    YAML(typ="safe", pure=True).dump(data, stream)
    return stream.getvalue()


def changed_bytes(content: bytes, dice: random.Random) -> bytes:
    """Cut the file, flip a bit, insert bytes that are no text, or repeat a part."""
    at, end = sorted(dice.randrange(len(content)) for _ in range(2))
    return dice.choice(
        [
            content[:at],
            content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :],
            content[:at] + dice.choice(ODD_BYTES) + content[at:],
            content[:end] + content[at:],
            content[:at] + b"# " * 200_000 + content[at:],
        ]
    )


def mutate(file: Path, dice: random.Random) -> None:
    """Write one to three changes into a file."""
    for _ in range(dice.randint(1, 3)):
        content = file.read_bytes()
        try:
            text = content.decode()
            change = dice.choice([changed_value, changed_value, changed_structure])
            content = change(text, dice).encode()
        except Exception:  # noqa: BLE001 what is no YAML any more takes changes of its bytes
            content = changed_bytes(content, dice) if content else b"a: 1\n"
        file.write_bytes(content if dice.random() < 0.8 else changed_bytes(content or b"a", dice))


def answer(root: Path) -> list[str]:
    """Read the experiment as the commands do before a run; return the lines of what is wrong with it."""
    try:
        experiment, execution = load_experiment(root), load_execution(root)
        volume_of(experiment, root)
        memory_of(experiment, batch_size=execution.batch_size)
        read_stages(root)
    except (ConfigError, PipelineError) as error:
        return str(error).splitlines()
    return []


@pytest.mark.long
def test_mutated_configurations_are_accepted_or_answered_with_file_and_line(tmp_path):
    base = write_experiment(tmp_path / "base")
    shutil.copy(Path(__file__).parent.parent / "dvc.yaml", base)
    files = sorted(path.relative_to(base) for path in [base / "params.yaml", *base.glob("experiments/**/*.yaml")])
    accepted = 0
    for case in range(CASES):
        dice, root = random.Random(case), tmp_path / str(case)
        shutil.copytree(base, root)
        file = root / ("params.yaml" if dice.random() < 0.5 else dice.choice(files))
        mutate(file, dice)
        began = time.monotonic()
        told = answer(root)
        assert time.monotonic() - began < SECONDS, f"case {case}: {file}"
        accepted += not told
        for line in told:
            assert len(line) < 1500, f"case {case}: {line[:300]}"
            assert re.match(rf"{re.escape(root.as_posix())}/\S+\.yaml(:\d+)?: |stage ", line), f"case {case}: {line}"
        if told:
            assert any(re.search(r"\.yaml:\d+|bytes|no file", line) for line in told), f"case {case}: {told}"
    assert 0 < accepted < CASES / 2

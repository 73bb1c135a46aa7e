"""dvc.yaml and code.yaml against the code: every stage stands on the code of its script, as it is now."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alignslm import code

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_code_of_its_script_and_no_source_file(stage):
    (script,) = re.findall(r"python -m stages\.(\w+)", definition(stage)["cmd"])
    named = [
        entry[code.FILE] for entry in definition(stage)["params"] if isinstance(entry, dict) and code.FILE in entry
    ]
    assert named == [[script]]
    assert not [dep for dep in definition(stage).get("deps", []) if dep.endswith(".py") or dep.startswith("alignslm")]


def test_code_yaml_is_true():
    assert code.recorded(ROOT).hashes == code.current(ROOT), "run `alignslm upgrade`"
    assert code.recorded(ROOT).kept == {}  # kept results are for those who have them

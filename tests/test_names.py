"""Names in params.yaml are names, never code: no shell reads them, and none of them leads to a path elsewhere."""

import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alignslm.config.loading import load_experiment
from alignslm.config.problems import ConfigError
from alignslm.pipeline import read_stages, sources
from tests.messages import names
from tests.micro import ENVIRONMENT, ROOT, copy_project, start_history

HOSTILE = (
    "a; touch PWNED", "$(touch PWNED)", "`touch PWNED`", "a && touch PWNED", "a | touch PWNED", "a' ; touch PWNED '",
    'a" ; touch PWNED "', "a\ntouch PWNED", "a & touch PWNED", "> PWNED", "../../victim", "../../../victim",
    "/victim", "-rf", "~", "*", "a b", "${seeds.base}", "a@b", "R1", "x" * 41, "",
)  # fmt: skip
NOUNS = {
    "preferences": "r1",
    "checkpoints": "r1",
    "systems": "base",
    "benchmarks": "swuggy",
}
COMMANDS = (("dvc", "repro"), ("dvc", "exp", "run"), ("python", "-m", "alignslm.speed", "dvc", "repro"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("names") / "project"
    copy_project(root)
    start_history(root)
    return root


def write(root: Path, key: str, name: str) -> None:
    """Give one entry of a noun, or the choice of a judge, a hostile name."""
    yaml = YAML()
    content = yaml.load((ROOT / "params.yaml").read_text())
    if key == "judge":
        content[key] = name
    else:
        content[key][name] = content[key][NOUNS[key]]
    with (root / "params.yaml").open("w") as stream:
        yaml.dump(content, stream)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", [*NOUNS, "judge"])
def test_check_refuses_a_name_that_is_no_name(project, key, name):
    if (key, name) == ("judge", "x" * 41):
        name = "x" * 65
    write(project, key, name)
    with pytest.raises(ConfigError) as raised:
        load_experiment(project)
    names(raised.value, f"params.yaml:{next(iter(raised.value.faults)).line}")


@pytest.mark.parametrize(
    ("number", "name"),
    [pytest.param(*one, marks=[] if one[0] % 4 == 0 else pytest.mark.long) for one in enumerate(HOSTILE)],
)
def test_no_command_runs_it_and_nothing_outside_is_touched(project, number, name):
    victims = [folder / "victim" for folder in (project, project / "artifacts", project.parent)]
    for victim in victims:
        victim.mkdir(parents=True, exist_ok=True)
        (victim / "kept").touch()
    (project / ".git/info/exclude").write_text("victim\nartifacts\n")
    write(project, [*NOUNS, "judge"][number % 5], name)
    command = COMMANDS[0 if "/" in name else number % len(COMMANDS)]  # `dvc exp run` empties outputs before any stage
    done = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stdout
    assert not [*project.rglob("PWNED"), *project.parent.glob("PWNED")]
    assert all((victim / "kept").exists() for victim in victims)


def test_every_stage_waits_for_the_check():
    """What a hostile name makes of a stage's paths comes after the check, whatever the entry reads."""
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    behind, queue = set(), list(sources_of(stages, "check"))
    while queue:
        behind.add(name := queue.pop())
        queue += sources_of(stages, name) - behind
    assert behind == set(stages) - {"check"}


def sources_of(stages: dict, name: str) -> set[str]:
    """Return the stages that read what a stage makes."""
    every = list(stages.values())
    return {other.name for other in every if any(source.name == name for source in sources(other, every))}

"""dvc.yaml as stages with their inputs and outputs, read without importing DVC.

Understood: `${...}` of params.yaml and of `vars`, and `foreach`/`do`. Only order and existence
are determined here; `plan.stages` finds what changed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from alignslm.code import FILE as CODE_FILE
from alignslm.config.document import Document, Plain, parse_document, read_mapping
from alignslm.config.problems import ConfigError, ConfigProblem
from alignslm.fast_yaml import load_texts

TEMPLATE = re.compile(r"\$\{\s*([^}]+?)\s*\}")
OUTPUT_KEYS = ("outs", "metrics", "plots")
UNVARYING = "check"  # reads every parameter, but writes the same for all: no stage reruns because it ran


class PipelineError(ValueError):
    """dvc.yaml says something that this reader cannot follow."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml after templating, with the paths it reads and makes, and the values it depends on.

    `params` are keys of params.yaml (`weights`, `checkpoints.r1`) or whole files; `keys` says which keys of a file,
    `code` those of code.yaml.
    """

    name: str
    description: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    cmd: str = ""

    def values(self, root: Path = Path(), read: dict[str, dict[str, Plain]] | None = None) -> dict[str, Plain]:
        """Return the values that the stage depends on, by `file: key`, as they are in `root` now.

        Files that are in `read` already are not read again; others are added.
        """
        read = {} if read is None else read
        for file in {self.file_of(name) for name in self.params} - read.keys():
            read[file] = read_mapping(root / file)
        wanted = [(self.file_of(name), key) for name in self.params for key in self.keys.get(name, (name,))]
        return {
            f"{file}: {key}": _lookup(key, read[file], self.name) if key != file else read[file] for file, key in wanted
        }

    @staticmethod
    def file_of(name: str) -> str:
        """Return the file that an entry of `params` is about."""
        return name if name.endswith(".yaml") else "params.yaml"


def read_stages(root: Path = Path(), *, params: str | None = None) -> list[Stage]:
    """Return every stage in an order in which they can run. Raises ConfigError or PipelineError.

    `params` is the text of a params.yaml that is to stand in for the one in `root`.
    """
    pipeline = _read_texts(root / "dvc.yaml")
    context = _read_texts(root / "params.yaml") if params is None else _data(parse_document(params, "params.yaml"))
    for extra in _items(pipeline.get("vars", [])):
        context |= extra if isinstance(extra, dict) else read_mapping(root / str(extra))
    entries = pipeline.get("stages")
    if not isinstance(entries, dict):
        raise PipelineError(f"{root / 'dvc.yaml'} has no mapping `stages`")
    return in_order([stage for name, entry in entries.items() for stage in _expand(name, entry, context)])


def stage_named(name: str) -> tuple[Stage, list[str]]:
    """Return a stage of the current folder's dvc.yaml, and the outputs of all stages. Raises PipelineError."""
    stages = read_stages()
    for stage in stages:
        if stage.name == name:
            return stage, [path for one in stages for path in one.outs]
    raise PipelineError(f"dvc.yaml has no stage {name}. Run `alignslm stages` for the names it has.")


def _read_texts(path: Path) -> dict[str, Plain]:
    """Return a YAML mapping with all values as text: enough for templates, and fast, because every stage reads it."""
    import yaml

    try:
        found = load_texts(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, FileNotFoundError):
        found = None
    return found if isinstance(found, dict) else read_mapping(path)  # which raises the error


def _data(document: Document | list[ConfigProblem]) -> dict[str, Plain]:
    if isinstance(document, list):
        raise ConfigError(document)
    return dict(document.data)


def _items(value: Plain) -> list[Plain]:
    return value if isinstance(value, list) else []


def _expand(name: str, entry: Plain, context: Mapping[str, Plain]) -> Iterator[Stage]:
    """Yield the one stage of an entry, or one for each item of its `foreach`."""
    if not isinstance(entry, dict):
        raise PipelineError(f"stage {name!r} of dvc.yaml is not a mapping")
    if "foreach" in entry:
        over = fill(entry["foreach"], context, name)
        pairs = over.items() if isinstance(over, dict) else [(str(item), item) for item in _items(over)]
        for key, item in pairs:
            yield _stage(f"{name}@{key}", entry.get("do"), {**context, "item": item, "key": key})
    else:
        yield _stage(name, entry, context)


def _stage(name: str, entry: Plain, context: Mapping[str, Plain]) -> Stage:
    if not isinstance(entry, dict):
        raise PipelineError(f"stage {name!r} of dvc.yaml is not a mapping")
    outs = [path for key in OUTPUT_KEYS for path in _paths(entry.get(key, []), context, name)]
    described = str(fill(entry.get("desc", ""), context, name))
    deps, params = (tuple(_paths(entry.get(key, []), context, name)) for key in ("deps", "params"))
    keys = {
        str(fill(file, context, name)): tuple(str(fill(key, context, name)) for key in _items(listed))
        for item in _items(entry.get("params", []))
        if isinstance(item, dict)
        for file, listed in item.items()
        if listed
    }
    return Stage(name, described, deps, tuple(outs), params, keys, keys.get(CODE_FILE, ()), str(entry.get("cmd", "")))


def _paths(entries: Plain, context: Mapping[str, Plain], stage: str) -> Iterator[str]:
    """Yield the paths of a list of paths, or of mappings from a path to its options."""
    for entry in _items(entries):
        for path in entry if isinstance(entry, dict) else [entry]:
            yield str(fill(path, context, stage))


def fill(value: Plain, context: Mapping[str, Plain], stage: str) -> Plain:
    """Replace `${a.b}` in texts; a text of only one template becomes the value itself, of any type."""
    if isinstance(value, dict):
        return {key: fill(item, context, stage) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, context, stage) for item in value]
    if not isinstance(value, str):
        return value
    if whole := TEMPLATE.fullmatch(value):
        return _lookup(whole[1], context, stage)
    return TEMPLATE.sub(lambda match: str(_lookup(match[1], context, stage)), value)


def _lookup(expression: str, context: Mapping[str, Plain], stage: str) -> Plain:
    at: Plain = dict(context)
    for step in expression.replace("[", ".").replace("]", "").split("."):
        if isinstance(at, dict) and step in at:
            at = at[step]
        elif isinstance(at, list) and step.isdecimal() and int(step) < len(at):
            at = at[int(step)]
        else:
            raise PipelineError(f"stage {stage!r} of dvc.yaml uses ${{{expression}}}, which params.yaml does not have")
    return at


def sources(stage: Stage, stages: list[Stage]) -> list[Stage]:
    """Return the stages that make something that this one reads: the same path, one inside it, or one around it."""
    return [
        other
        for other in stages
        if other is not stage and any(_overlap(dep, out) for dep, out in product(stage.deps, other.outs))
    ]


def with_followers(stages: list[Stage], begins: Callable[[Stage], bool]) -> list[Stage]:
    """Return the stages, of some in running order, that `begins` accepts, and all that read what those make.

    Nothing follows `check`, which writes the same again.
    """
    found: list[Stage] = []
    for stage in stages:
        follows = any(source in found and source.name != UNVARYING for source in sources(stage, stages))
        if follows or begins(stage):
            found.append(stage)
    return found


def _overlap(one: str, other: str) -> bool:
    first, second = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)


def in_order(stages: list[Stage]) -> list[Stage]:
    """Return the stages, each after its sources, otherwise in the order written. Raises PipelineError for a circle."""
    before = {stage.name: {source.name for source in sources(stage, stages)} for stage in stages}
    done: list[Stage] = []
    waiting = list(stages)
    while waiting:
        ready = next((stage for stage in waiting if before[stage.name] <= {other.name for other in done}), None)
        if ready is None:
            raise PipelineError(f"stages of dvc.yaml wait for each other: {', '.join(s.name for s in waiting)}")
        waiting.remove(ready)
        done.append(ready)
    return done

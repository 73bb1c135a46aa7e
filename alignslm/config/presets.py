"""Presets: whole experiments by name, written into params.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from alignslm.config import yaml_edit
from alignslm.config.document import Document, KeyPath, Plain, parse_document, read_document
from alignslm.config.experiment import Experiment
from alignslm.config.loading import resolve
from alignslm.config.model import Config, Name
from alignslm.config.problems import ConfigError, ConfigProblem, suggestion
from alignslm.config.validation import validate
from alignslm.storage import write_text

# A preset that names one of these mappings names it whole: entries that it leaves out are removed.
WHOLE_MAPPINGS = (
    "preferences",
    "checkpoints",
    "guards",
    "reward_models",
    "best_of",
    "systems",
    "benchmarks",
    "imported_preferences",
)


class Preset(Config):
    """The keys of params.yaml that define an experiment; others stay as they are.

    A preset `on` another sets that one's keys first, so that it is a whole experiment too: an ablation, say.
    """

    description: str
    extends: Name | None = None
    set: dict[str, Any]


@dataclass(frozen=True)
class Edited:
    """params.yaml as a preset would leave it: its text, the experiment it then says, and what changes."""

    text: str
    experiment: Experiment
    changes: list["Change"]


@dataclass(frozen=True)
class Change:
    """One key of params.yaml before and after; `added` and `removed` tell a missing key from a null."""

    key: KeyPath
    old: Plain = None
    new: Plain = None
    added: bool = False
    removed: bool = False


def list_presets(root: Path = Path()) -> dict[str, Preset]:
    """Return every preset of root/experiments/preset by name. Raises ConfigError with all their faults."""
    names = _names(root)
    read = {name: _read(name, root) for name in names}
    if faults := [fault for item in read.values() if isinstance(item, list) for fault in item]:
        raise ConfigError(faults)
    return {name: item for name, item in read.items() if isinstance(item, Preset)}


def apply_preset(name: str, root: Path = Path()) -> list[Change]:
    """Write a preset into root/params.yaml, comments and layout kept, and return what changed.

    Raises ConfigError, without changing the file, if preset, file or resulting experiment is invalid.
    """
    return _write(preview(name, root), root)


def set_values(values: dict[str, Plain], root: Path = Path(), *, named: str) -> list[Change]:
    """Write keys into root/params.yaml as a preset does; `named` is their origin in messages."""
    return _write(_edited(values, root, named), root)


def preview_values(values: dict[str, Plain], root: Path = Path(), *, named: str) -> Edited:
    """Return root/params.yaml as `set_values` would write it; the file is not changed."""
    return _edited(values, root, named)


def _write(edited: Edited, root: Path) -> list[Change]:
    path = root / "params.yaml"
    if edited.changes:
        write_text(path, edited.text)
    return edited.changes


def preview(name: str, root: Path = Path()) -> Edited:
    """Return root/params.yaml with a preset applied. Raises ConfigError like `apply_preset`."""
    preset, before = _read(name, root), read_document(root / "params.yaml")
    if isinstance(preset, list) or isinstance(before, list):
        raise ConfigError(fault for item in (preset, before) if isinstance(item, list) for fault in item)
    return _edited(_wanted(name, preset, root), root, f"preset {name}")


def _edited(values: dict[str, Plain], root: Path, named: str) -> Edited:
    path = root / "params.yaml"
    before = read_document(path)
    if isinstance(before, list):
        raise ConfigError(before)
    listed = changes(before.data, values)
    text = _edit(path.read_text(encoding="utf-8"), listed)
    experiment = resolve(_parse(text, f"{path.as_posix()} with {named}"), root)
    return Edited(text, experiment, listed)


def _wanted(name: str, preset: Preset, root: Path) -> dict[str, Plain]:
    """Return the keys set by a preset and the one it extends."""
    if preset.extends is None:
        return preset.set
    below = _read(preset.extends, root)
    if isinstance(below, list):
        raise ConfigError(below)
    if below.extends is not None:
        where = (root / "experiments" / "preset" / f"{name}.yaml").as_posix()
        raise ConfigError(
            [
                ConfigProblem(
                    where,
                    None,
                    "extends",
                    f"{preset.extends} already extends {below.extends}; extend that one directly",
                )
            ]
        )
    return _over(below.set, preset.set)


def _over(below: Mapping[str, Plain], above: Mapping[str, Plain], *, whole: bool = True) -> dict[str, Plain]:
    """Lay one preset's keys over another's, key by key; mappings that presets name whole are replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        mapped = isinstance(value, dict) and isinstance(under, dict) and not (whole and key in WHOLE_MAPPINGS)
        merged[key] = _over(under, value, whole=False) if mapped else value  # type: ignore[arg-type]
    return merged


def changes(current: dict[str, Plain], wanted: dict[str, Plain], above: KeyPath = ()) -> list[Change]:
    """Return the changes from `current` to every key of `wanted`."""
    listed: list[Change] = []
    for key, new in wanted.items():
        path, old = (*above, key), current.get(key)
        if key not in current:
            listed.append(Change(path, new=new, added=True))
        elif isinstance(old, dict) and isinstance(new, dict):
            listed += changes(old, new, path)
        elif old != new:
            listed.append(Change(path, old=old, new=new))
    # Removals last: a mapping in a text must not become empty in between.
    return [*listed, *_removals(current, wanted, above)]


def _removals(current: dict[str, Plain], wanted: dict[str, Plain], above: KeyPath) -> Iterator[Change]:
    if len(above) == 1 and above[0] in WHOLE_MAPPINGS:
        for key in current.keys() - wanted.keys():
            yield Change((*above, key), old=current[key], removed=True)


def _edit(text: str, listed: list[Change]) -> str:
    for change in listed:
        if change.added:
            text = yaml_edit.insert_key(text, change.key, change.new)
        elif change.removed:
            text = yaml_edit.delete_key(text, change.key)
        else:
            text = yaml_edit.replace_value(text, change.key, change.new)
    return text


def _parse(text: str, name: str) -> Document:
    document = parse_document(text, name)
    if isinstance(document, list):
        raise ConfigError(document)
    return document


def _names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "experiments" / "preset").glob("*.yaml"))


def _read(name: str, root: Path) -> Preset | list[ConfigProblem]:
    path = root / "experiments" / "preset" / f"{name}.yaml"
    if name not in _names(root):
        return [
            ConfigProblem(path.as_posix(), None, "", "no such preset" + suggestion(name, _names(root), label="presets"))
        ]
    document = read_document(path)
    return document if isinstance(document, list) else validate(document, TypeAdapter(Preset), Preset)

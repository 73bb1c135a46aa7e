"""Whole experiments by name: what a preset sets in params.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from alignslm.config import splice
from alignslm.config.document import Document, KeyPath, Plain, parse_document, read_document
from alignslm.config.faults import ConfigError, Fault, suggestion
from alignslm.config.loading import resolve
from alignslm.config.model import Config
from alignslm.config.validation import validate

# A preset that names one of these mappings names it whole: entries that it leaves out are removed.
WHOLE_MAPPINGS = ("rounds", "controls", "benchmarks")


class Preset(Config):
    """The keys of params.yaml that make an experiment what it is; keys left out stay as they are."""

    description: str
    set: dict[str, Any]


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

    Raises ConfigError, and leaves the file alone, where preset, file or resulting experiment is at fault.
    """
    path = root / "params.yaml"
    preset, before = _read(name, root), read_document(path)
    if isinstance(preset, list) or isinstance(before, list):
        raise ConfigError(fault for item in (preset, before) if isinstance(item, list) for fault in item)
    text = path.read_text(encoding="utf-8")
    listed = changes(before.data, preset.set)
    edited = _edit(text, listed)
    resolve(_parse(edited, f"{path.as_posix()} with preset {name}"), root)
    if listed:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(edited, encoding="utf-8")
        partial.replace(path)
    return listed


def changes(current: dict[str, Plain], wanted: dict[str, Plain], above: KeyPath = ()) -> list[Change]:
    """Return what must change for `current` to hold every key of `wanted`."""
    listed: list[Change] = []
    for key, new in wanted.items():
        path, old = (*above, key), current.get(key)
        if key not in current:
            listed.append(Change(path, new=new, added=True))
        elif isinstance(old, dict) and isinstance(new, dict):
            listed += changes(old, new, path)
        elif old != new:
            listed.append(Change(path, old=old, new=new))
    # Removals last: a mapping in a text may not become empty on the way.
    return [*listed, *_removals(current, wanted, above)]


def _removals(current: dict[str, Plain], wanted: dict[str, Plain], above: KeyPath) -> Iterator[Change]:
    if len(above) == 1 and above[0] in WHOLE_MAPPINGS:
        for key in current.keys() - wanted.keys():
            yield Change((*above, key), old=current[key], removed=True)


def _edit(text: str, listed: list[Change]) -> str:
    for change in listed:
        if change.added:
            text = splice.insert_key(text, change.key, change.new)
        elif change.removed:
            text = splice.delete_key(text, change.key)
        else:
            text = splice.replace_value(text, change.key, change.new)
    return text


def _parse(text: str, name: str) -> Document:
    document = parse_document(text, name)
    if isinstance(document, list):
        raise ConfigError(document)
    return document


def _names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "experiments" / "preset").glob("*.yaml"))


def _read(name: str, root: Path) -> Preset | list[Fault]:
    path = root / "experiments" / "preset" / f"{name}.yaml"
    if name not in _names(root):
        return [Fault(path.as_posix(), None, "", "no such preset" + suggestion(name, _names(root), label="presets"))]
    document = read_document(path)
    return document if isinstance(document, list) else validate(document, TypeAdapter(Preset), Preset)

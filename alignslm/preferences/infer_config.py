"""Config of a folder or dataset of preferences, inferred from its first row."""

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from alignslm import audio
from alignslm.config.corpora import DatasetSource
from alignslm.config.preferences import AnyPreferences, PreferencesConfig
from alignslm.config.pretrained_lm import TrainingUnits
from alignslm.config.sources import FolderSource
from alignslm.config.yaml_edit import flow
from alignslm.fetching import download, matching_files
from alignslm.preferences.files import SUFFIXES, RowSlice, below, first_row
from alignslm.preferences.pairing import PreferenceError
from alignslm.preferences.reading import SIDES, is_unit_text, sound_bytes

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HEAD = "# Imported preferences; every row was checked when this was written. See docs/preferences.md.\n"


class ImportOptions(NamedTuple):
    """The user's options for preferences; None is inferred from the files."""

    source: str
    revision: str
    train: str | None
    valid: str | None
    columns: tuple[str, str, str] | None
    valid_fraction: float
    append_eos: bool
    repeats: str
    strip_prompt: bool
    units: TrainingUnits | None


def describe(asked: ImportOptions, root: Path) -> AnyPreferences:
    """Return the config for the files and options, with its source pinned.

    Raises PreferenceError if no file is found, columns are missing, or units are without their encoder.
    """
    source, train = source_of(asked, root)
    folder = download(below(source, root), patterns=[f"*{suffix}" for suffix in SUFFIXES]).path
    names = [path.relative_to(folder).as_posix() for path in matching_files(folder, None) if path.suffix in SUFFIXES]
    files = _split(names, train or asked.train, asked.valid)
    name = next(name for name in names if fnmatch(name, files["train"][0]))
    first = _first_row(folder / name)
    columns = dict(zip(SIDES, asked.columns or _columns(first), strict=True))
    chosen = first.get(columns["chosen"])
    held = _units(asked) if _is_units(chosen) else _spoken(chosen, RowSlice(folder, name, "train", 0, 1))
    content = {
        **held,
        "source": source.model_dump(exclude_none=True),
        "files": files,
        "valid_fraction": None if files["valid"] else asked.valid_fraction,
        "overlapping_prompts": "exclude",
        "columns": columns,
        "append_eos": asked.append_eos,
        "strip_prompt": asked.strip_prompt,
        "max_units": None,
    }
    return TypeAdapter[AnyPreferences](PreferencesConfig).validate_python(content)


def _first_row(file: Path) -> Mapping[str, Any]:
    first = first_row(file)
    if isinstance(first, str):
        raise PreferenceError(f"the first row of {file} cannot be read: {first}")
    return first


def source_of(asked: ImportOptions, root: Path) -> tuple[DatasetSource | FolderSource, str | None]:
    """Return the source of the preferences, and the single file in it that was named, if any."""
    path = Path(asked.source).expanduser()
    if path.exists():
        inside = path.resolve().is_relative_to(root.resolve())
        place = os.path.relpath(path, root) if inside else str(path.resolve())
        folder = place if path.is_dir() else os.path.dirname(place) or "."  # noqa: PTH120 (a text for YAML)
        return FolderSource(kind="folder", path=folder), None if path.is_dir() else path.name
    if HUB_ID.fullmatch(asked.source):
        return DatasetSource(kind="hub", repo=asked.source, revision=asked.revision), None
    raise PreferenceError(f"{asked.source} is neither a file or folder of this machine nor a dataset's id (owner/name)")


def _split(names: Sequence[str], train: str | None, valid: str | None) -> dict[str, list[str]]:
    """Return the patterns of either split, by default from the files' names."""
    if not names:
        raise PreferenceError(f"no file of preferences is there: {' or '.join(SUFFIXES)} are read")
    guessed = [name for name in names if re.search(r"valid|dev", name)]
    validating = [valid] if valid else guessed if train is None else []
    kept = [name for name in names if name not in guessed and not (valid and fnmatch(name, valid))]
    training = [train] if train else [name for name in kept if "test" not in name]
    if not training or not any(fnmatch(name, training[0]) for name in names):
        raise PreferenceError(f"no file serves training (there are: {', '.join(names)}); name one with --train")
    return {"train": training, "valid": validating}


def _columns(row: Mapping[str, Any]) -> tuple[str, str, str]:
    for suffix in ("", "_audio", "_units", "_path"):
        names = tuple(f"{side}{suffix}" for side in SIDES)
        if all(name in row and not _is_text(row[name], suffix) for name in names):
            return names[0], names[1], names[2]
    held = f"prompt, chosen and rejected are text ({row.get(SIDES[0])!r:.40}), neither units nor audio"
    cause = held if all(name in row for name in SIDES) else "no columns are prompt, chosen and rejected"
    raise PreferenceError(f"{cause}; columns are {', '.join(row)}. Name the right ones: --columns a,b,c")


def _is_text(value: Any, suffix: str) -> bool:
    """Return whether a text is words, not a path or units: a column `prompt` of text may be next to `prompt_path`."""
    return isinstance(value, str) and suffix != "_path" and not is_unit_text(value)


def _is_units(value: Any) -> bool:
    keys = {"units", "audio_repr"}
    return isinstance(value, list) or (isinstance(value, Mapping) and bool(keys & set(value))) or is_unit_text(value)


def _units(asked: ImportOptions) -> dict[str, object]:
    if asked.units is None:
        raise PreferenceError(
            "the rows are units, which mean something else with another encoder, but do not say which encoder made "
            "them. Name it: --encoder mhubert-25hz-km500 (a file of experiments/encoder)."
        )
    return {"kind": "units", "units": asked.units.model_dump(), "repeats": asked.repeats}


def _spoken(value: Any, place: RowSlice) -> dict[str, object]:
    data = sound_bytes(value, place)
    if isinstance(data, str):
        raise PreferenceError(f"the first row's chosen side is neither units nor audio ({data})")
    _, rate_hz = audio.decode(data)
    return {"kind": "spoken", "sample_rate_hz": rate_hz}


def pinned(config: AnyPreferences, identity: str) -> AnyPreferences:
    """Return the config with its source pinned: to a commit of the Hub, or a folder's hash."""
    field = "revision" if config.source.kind == "hub" else "sha256"
    value = identity.rpartition("@")[2] if field == "revision" else identity.removeprefix("sha256:")
    return config.model_copy(update={"source": config.source.model_copy(update={field: value})})


def yaml_of(config: AnyPreferences) -> str:
    """Return the config as YAML, with a comment above each key."""
    content = config.model_dump(mode="json", exclude_none=False)
    content["source"] = {name: value for name, value in content["source"].items() if value is not None}
    order = ["kind", *(name for name in type(config).model_fields if name != "kind")]
    lines = [HEAD]
    for name in order:
        description = type(config).model_fields[name].description
        lines += [f"# {description}\n"] if description else []
        lines.append(f"{name}: {flow(content[name])}\n")
    return "".join(lines)

"""An experiment's files and the template they came from: laying them down, and following a newer template.

`.alignslm.json` has the hash that each file of the template had when it was last seen, so a file whose hash is still
that one was never edited, and may be replaced.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignslm import __version__, code
from alignslm.storage import copy_file, write_text
from alignslm.template import template_files, template_folder

FILE = ".alignslm.json"


class TemplateError(ValueError):
    """An experiment cannot be begun, or is not there."""


class Change(NamedTuple):
    """The effect of a newer template on a file: `added`, `replaced`, `removed`, or `edited`: it is not changed."""

    path: str
    kind: str
    difference: str = ""


def begin(folder: Path) -> None:
    """Write the files of a new experiment. Raises TemplateError if the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TemplateError(f"{folder} exists and is not an empty folder; name one that does not exist yet.")
    files = template_files()
    for name, file in files.items():
        copy_file(file, folder / name)
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", readme.replace("NAME", folder.resolve().name))
    code.write(folder, code.current(folder))
    _note(folder)


def previous_version(root: Path) -> str | None:
    """Return the version of alignslm at an experiment's last upgrade, or None if `init` did not create it."""
    return _noted(root).get("version")


def renew(root: Path) -> Iterator[Change]:
    """Update files that were never edited to the template, and yield the changes; edited ones are not changed.

    Does nothing if `begin` did not create the experiment, as in a clone of alignslm itself.
    """
    noted = _noted(root).get("files")
    if noted is None or template_folder().resolve() == root.resolve():
        return
    files = template_files()
    for name in sorted({*files, *noted}):
        if change := _renewed(root / name, files.get(name), noted.get(name)):
            yield change._replace(path=name)
    _note(root)


def _renewed(path: Path, new_file: Path | None, noted: str | None) -> Change | None:
    newest = _hash(new_file) if new_file else None
    own = _hash(path) if path.is_file() else None
    if newest in {own, noted} or (own is None and noted is not None):
        return None  # as the template has it, not changed there, or removed here on purpose
    if own not in {None, noted}:
        return Change("", "edited", _difference(path, new_file))
    if new_file is None:
        path.unlink()
        return Change("", "removed")
    copy_file(new_file, path)
    return Change("", "replaced" if own else "added")


def _difference(path: Path, new_file: Path | None) -> str:
    old = path.read_text(encoding="utf-8").splitlines(keepends=True)
    new = new_file.read_text(encoding="utf-8").splitlines(keepends=True) if new_file else []
    return "".join(difflib.unified_diff(old, new, f"{path.name} (yours)", f"{path.name} (alignslm {__version__})"))


def _note(root: Path) -> None:
    hashes = {name: _hash(file) for name, file in template_files().items()}
    write_text(root / FILE, json.dumps({"version": __version__, "files": hashes}, indent=1) + "\n")


def _noted(root: Path) -> dict[str, Any]:
    path = root / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_text(encoding="utf-8").encode()).hexdigest()[:16]

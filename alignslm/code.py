"""code.yaml: one hash per stage script for the code that its results rest on.

dvc.yaml names these hashes as parameters, so a changed hash reruns the stages that depend on it. `alignslm upgrade`
writes them, after printing what will rerun. A stage stops if code.yaml does not record its code: an installed upgrade
neither reruns weeks of work unasked, nor mixes results of two versions.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from alignslm.code_deps import PACKAGE, ROOT, code_hash
from alignslm.locks import WORK
from alignslm.storage import write_text

FILE = "code.yaml"
HEAD = """\
# One hash per stage script: the code of the stage and of the library that results were made with.
# Written by `alignslm upgrade`, which first prints what will rerun. dvc.yaml has these values as parameters.
"""
KEPT = "kept"


class CodeError(ValueError):
    """A stage's code is not the code that code.yaml records."""


class Recorded(NamedTuple):
    """Content of code.yaml: the hash that DVC compares, and newer code whose results would be the same, by script."""

    hashes: dict[str, str]
    kept: dict[str, str]

    def stands(self, script: str, now: str) -> bool:
        """Return whether results of the recorded code may be mixed with those of the current code."""
        return now in {self.hashes.get(script), self.kept.get(script)}


def current(root: Path = Path()) -> dict[str, str]:
    """Return the hash of every stage script of an experiment, under the library that is running."""
    scripts = sorted((root / "stages").glob("*.py"))
    return {
        script.stem: code_hash(script.resolve())
        for script in scripts
        if script.stem not in {"__init__", "judging", "names", "run"}
    }


def recorded(root: Path = Path()) -> Recorded:
    """Read an experiment's code.yaml; empty if there is none."""
    from alignslm.config.document import read_mapping

    values = dict(read_mapping(root / FILE)) if (root / FILE).exists() else {}
    kept = values.pop(KEPT, {})
    texts = ({name: str(value) for name, value in of.items()} if isinstance(of, dict) else {} for of in (values, kept))
    return Recorded(*texts)


def write(root: Path, hashes: Mapping[str, str], kept: Mapping[str, str] | None = None) -> None:
    """Write code.yaml."""
    lines = [f'{name}: "{value}"\n' for name, value in sorted(hashes.items())]
    if kept:
        lines += [f"{KEPT}: # later code, for which results of the code above are kept\n"]
        lines += [f'  {name}: "{value}"\n' for name, value in sorted(kept.items())]
    write_text(root / FILE, HEAD + "".join(lines))


def require_recorded() -> None:
    """Raise CodeError if this process runs a stage script with other code than code.yaml records."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if script.parent.name != "stages" or script.stem not in (known := recorded()).hashes:
        return
    if not known.stands(script.stem, hash_of(script)):
        raise CodeError(
            f"The code of stages/{script.name} is not the code that {FILE} records: run `alignslm upgrade`, which says "
            "what will rerun."
        )


def hash_of(script: Path) -> str:
    """Return `code_hash` of a stage's script.

    Reading and parsing the code takes longer than some stages. So the hash is kept in .work, and is valid as long as no
    file of the library or of the stages was written: equal in inode, size and times, including the time of the last
    change, which cannot be set.
    """
    files = [file for file in (ROOT / PACKAGE).rglob("*") if "__pycache__" not in file.parts]
    digest = hashlib.sha256()
    for file in sorted([*files, *script.resolve().parent.glob("*.py")]):
        state = file.stat()
        digest.update(f"{file}\0{state.st_ino} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}\0".encode())
    kept = WORK / "code" / f"{script.stem}.txt"
    state_now, _, known = (kept.read_text(errors="replace") if kept.exists() else "").partition(" ")
    if state_now != digest.hexdigest() or not known:
        known = code_hash(script.resolve())
        write_text(kept, f"{digest.hexdigest()} {known}")
    return known

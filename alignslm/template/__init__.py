"""The files that an experiment begins with: the top level of the repository of alignslm itself.

The build copies them into the wheel (setup.py), so no second copy is kept; an editable installation reads the checkout.
Only the standard library is imported here: setup.py runs this file before anything is installed.
"""

from pathlib import Path

_HERE = Path(__file__).parent
_IN_WHEEL, _CHECKOUT = _HERE / "files", _HERE.parent.parent
_NAMES = ("dvc.yaml", "params.yaml", "experiments", "stages", "code", ".gitignore", ".dvcignore", ".dvc/config",
          ".dvc/.gitignore", ".dvc/plots")  # fmt: skip


def template_folder() -> Path:
    """Return the folder with the template's files."""
    return _IN_WHEEL if _IN_WHEEL.is_dir() else _CHECKOUT


def template_files() -> dict[str, Path]:
    """Return the template's files by their place in an experiment."""
    top = template_folder()
    found = [file for name in _NAMES for file in ([top / name] if (top / name).is_file() else (top / name).rglob("*"))]
    return {
        file.relative_to(top).as_posix(): file
        for file in sorted(found)
        if file.is_file() and "__pycache__" not in file.parts
    }

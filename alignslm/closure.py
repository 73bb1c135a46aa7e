"""Which modules carry a stage's science: what its script imports, and what those import, without the plumbing."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "alignslm"

# Code that moves bytes and messages about, or holds values that dvc.yaml tracks as parameters.
PLUMBING = frozenset({
    "artifacts", "config", "pipeline", "tables", "progress", "failures", "shards", "storage", "closure", "fetching",
    "device", "cli", "engine", "extras", "threads", "machine", "lifeline", "locks", "times", "warm", "__init__",
    "__main__",
})  # fmt: skip


def science(script: Path) -> list[Path]:
    """Return a stage's script and the top modules and packages of alignslm that it rests on, sorted.

    These are the code dependencies of the stage in dvc.yaml. Imports inside functions count as well.
    """
    tops = {name.split(".")[1] for file in _closure(script) for name in _imports(file) if _is_science(name)}
    return sorted([script, *(_top_path(name) for name in tops)])


def _closure(script: Path) -> set[Path]:
    reached: set[Path] = set()
    queue = [script]
    while queue:
        file = queue.pop()
        if file not in reached:
            reached.add(file)
            queue.extend(_files(file))
    return reached


def _files(file: Path) -> Iterator[Path]:
    """Yield the files of science that a file imports, their packages' own files included: a package runs first."""
    for name in filter(_is_science, _imports(file)):
        parts = name.split(".")
        for depth in range(2, len(parts) + 1):
            found = _module_file(".".join(parts[:depth]))
            if found:
                yield found


def _is_science(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[0] == PACKAGE and parts[1] not in PLUMBING and _module_file(name) is not None


@cache
def _imports(file: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def _module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _top_path(name: str) -> Path:
    package = ROOT / PACKAGE / name
    return package if package.is_dir() else package.with_suffix(".py")

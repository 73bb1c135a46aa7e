"""Which modules carry a stage's science, and one hash of them: what code.yaml records.

The science is the modules that a stage's script imports, directly or not, without the plumbing. Comments and
docstrings are not part of the hash, so a better explanation reruns nothing.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "alignslm"

# Code that only moves bytes and messages, or has values that dvc.yaml tracks as parameters.
IGNORED_MODULES = frozenset({
    "artifacts", "config", "pipeline", "tables", "progress", "redaction", "user_errors", "shards", "storage",
    "code_deps", "code", "fetching", "device", "cli", "engine", "extras", "loading", "own_code", "threads", "machine",
    "lifeline", "locks", "times", "speed", "integrity", "outside", "terminal", "__init__", "__main__", "template",
})  # fmt: skip

_LINE_STARTS = {tokenize.ENCODING, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def code_dependencies(script: Path) -> list[Path]:
    """Return a stage's script and the top modules and packages of alignslm that it rests on, sorted.

    Imports inside functions count as well, and so does a module that is named in a string, as registries do.
    """
    tops = {name.split(".")[1] for file in _closure(script) for name in _imports(file) if _is_science(name)}
    return sorted([script, *(_top_path(name) for name in tops)])


def code_hash(script: Path) -> str:
    """Return 16 hex digits for the code that a stage's results rest on.

    Equal on every system, Python version and place of installation: relative names and text are hashed, line ends and
    comments and docstrings left out.
    """
    digest = hashlib.sha256()
    files = {file for path in code_dependencies(script) for file in _files_of(path)}
    for name, file in sorted((file.relative_to(_home(file, script)).as_posix(), file) for file in files):
        digest.update(f"{name}\0{_content_hash(file)}\0".encode())
    return digest.hexdigest()[:16]


def _home(file: Path, script: Path) -> Path:
    """Return the folder that contains `stages` or `alignslm`, which may be different ones."""
    return script.parent.parent if file == script else ROOT


def _files_of(path: Path) -> list[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)


@cache
def _content_hash(file: Path) -> str:
    content = without_prose(_text(file)).encode() if file.suffix == ".py" else file.read_bytes()
    return hashlib.sha256(content).hexdigest()


def without_prose(text: str) -> str:
    """Return Python source without its comments and docstrings, and without lines that had nothing else."""
    lines = [*io.StringIO(text)]
    for token in reversed([*_prose(text)]):  # from the end, so that positions stay valid
        (row, column), (last, after) = token.start, token.end
        rest = lines[row - 1][:column].rstrip() + lines[last - 1][after:]
        lines[row - 1 : last] = [rest] if rest.strip() else []
    return "".join(lines)


def _prose(text: str) -> Iterator[tokenize.TokenInfo]:
    """Yield comments, and strings that are a statement of their own: docstrings."""
    before = tokenize.ENCODING
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and before in _LINE_STARTS):
            yield token
        if token.type not in {tokenize.COMMENT, tokenize.NL}:
            before = token.type


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
    return len(parts) > 1 and parts[0] == PACKAGE and parts[1] not in IGNORED_MODULES and _module_file(name) is not None


@cache
def _imports(file: Path) -> frozenset[str]:
    return frozenset(named_modules(_text(file)))


def named_modules(text: str) -> Iterator[str]:
    """Yield the names that Python source may import, those named in strings of its own included."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE}."):
            yield node.value.partition(":")[0]


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def _module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _top_path(name: str) -> Path:
    package = ROOT / PACKAGE / name
    return package if package.is_dir() else package.with_suffix(".py")

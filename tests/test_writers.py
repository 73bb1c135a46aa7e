"""Nothing opens an output for writing: `alignslm.storage` makes new files and renames them."""

import ast
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignslm import storage
from tests.micro import ROOT, edit, make_repository, run

WRITERS = {
    *("write_text", "write_bytes", "touch"),
    *("savefig", "save_file", "save_pretrained", "write_table", "ParquetWriter", "write_parquet", "write_csv"),
    *("save", "savez", "savez_compressed", "tofile", "dump", "to_csv", "to_parquet", "save_to_disk"),
    *("copy", "copy2", "copyfile", "copytree", "link_to", "hardlink_to", "link"),
}
MODULES_OF = {"copy": "shutil", "save": "torch np numpy", "link": "os", "dump": "json pickle joblib yaml"}
FRESH = {"partial"}  # what the writers of alignslm.storage give, under this name wherever it is handed on
ALLOWED = {
    ("alignslm/storage.py", "write_bytes"): "the probe of a disk that refused, a new file",
    ("alignslm/fetching/url.py", "open"): "a download goes on where it broke off; it lies in a cache of its own",
    ("alignslm/judge/reply_store.py", "open"): "the ledger of paid requests grows; it lies in a cache of its own",
    ("alignslm/demo/space.py", "copytree"): "into a folder that must be empty",
    ("alignslm/tables/writing.py", "write_table"): "rows, by the writer that is opened on a new file",
    ("alignslm/speed/forkserver.py", "open"): "/dev/null",
}


def writes(file: Path) -> Iterator[tuple[str, int]]:
    """Yield (what, line) of each call that writes to a place that is not known to be new."""
    tree = ast.parse(file.read_text())
    streams = {name.id for node in ast.walk(tree) for name in _streams(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (what := _writes(node)):
            names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            if not names & (FRESH | streams):
                yield what, node.lineno


def _streams(node: ast.AST) -> list[ast.Name]:
    """Return the names that stand for a stream in memory."""
    made = isinstance(node, ast.Assign) and ast.unparse(node.value) in {"io.BytesIO()", "io.StringIO()"}
    return [target for target in node.targets if isinstance(target, ast.Name)] if made else []


def _writes(call: ast.Call) -> str | None:
    name = ast.unparse(call.func).rpartition(".")
    match name:
        case (_, _, "open"):
            modes = [node.value for node in [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
                     if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
            ternary = [part.value for node in call.args for part in ast.walk(node) if isinstance(part, ast.Constant)]
            return (
                "open" if any({*"wax+"} & {*str(mode)} for mode in [*modes, *ternary] if len(str(mode)) < 4) else None
            )
        case (("soundfile" | "sf"), _, "write"):
            return "write"
        case (_, _, "write_csv") if not call.args:  # gives text
            return None
        case ("", _, "write_text" | "write_bytes"):  # those of alignslm.storage
            return None
        case (module, _, last) if last in WRITERS:
            return last if last not in MODULES_OF or module in MODULES_OF[last].split() else None
    return None


def test_no_module_opens_an_output_for_writing():
    found = {
        (str(file.relative_to(ROOT)), what): line
        for folder in ("alignslm", "stages")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for what, line in writes(file)
    }
    new = [f"{file}:{line} {what}" for (file, what), line in found.items() if (file, what) not in ALLOWED]
    assert not new, "write these through alignslm.storage"
    assert ALLOWED.keys() == found.keys()  # an exception that nothing needs any more goes


def test_what_is_called_partial_is_what_a_writer_gave():
    """As a parameter, in an assignment of storage itself, or behind `with replacing(...) as partial`."""
    for folder in ("alignslm", "stages"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.withitem) and node.optional_vars is not None:
                    if ast.unparse(node.optional_vars) == "partial":
                        made_by = ast.unparse(node.context_expr).partition("(")[0]
                        assert made_by in {"atomic_write", "filling", "replacing_folder", "_fresh"}, file
                elif isinstance(node, ast.Assign) and "partial" in map(ast.unparse, node.targets):
                    assert file.name in {"storage.py", "reply_store.py"}, file


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("path.write_text('a')", "write_text"),
        ("(folder / name).write_bytes(b'')", "write_bytes"),
        ("path.open('a')", "open"),
        ("open(path, mode='r+b')", "open"),
        ("part.open('ab' if more else 'wb')", "open"),
        ("save_file(tensors, folder / 'model')", "save_file"),
        ("model.save_pretrained(folder)", "save_pretrained"),
        ("shutil.copy(a, b)", "copy"),
        ("np.save(path, rows)", "save"),
        ("soundfile.write(path, wave, 8000)", "write"),
        ("frame.write_csv(path)", "write_csv"),
        ("path.open('rb')", None),
        ("path.open()", None),
        ("save_file(tensors, partial)", None),
        ("frame.write_csv()", None),
        ("take.save(path)", None),
    ],
)
def test_what_the_rule_forbids(tmp_path, line, found):
    (tmp_path / "module.py").write_text(line)
    assert [what for what, _ in writes(tmp_path / "module.py")] == ([found] if found else [])


def test_each_writer_leaves_what_was_linked_alone(tmp_path):
    for number, write in enumerate(
        (
            lambda path: storage.write_text(path, "new"),
            lambda path: storage.write_bytes(path, b"new"),
            lambda path: storage.copy_file(ROOT / "LICENSE", path),
            lambda path: _fill(storage.filling, path),
            lambda path: _fill(storage.replacing_folder, path),
        )
    ):
        path = tmp_path / str(number) / "folder" / "file"
        path.parent.mkdir(parents=True)
        path.write_text("old")
        cached = tmp_path / str(number) / "object"
        os.link(path, cached)
        write(path)
        assert cached.read_text() == "old"
        assert path.read_text() != "old"
        assert [left.name for left in path.parent.iterdir()] == ["file"]
        assert sorted(left.name for left in path.parent.parent.iterdir()) == ["folder", "object"]


def _fill(writer, path: Path) -> None:
    with writer(path.parent) as partial:
        (partial / "file").write_text("new")


def test_filling_keeps_other_files_and_replacing_a_folder_does_not(tmp_path):
    for writer, kept in ((storage.filling, {"old", "deep", "new"}), (storage.replacing_folder, {"deep", "new"})):
        folder = tmp_path / writer.__name__
        folder.mkdir()
        (folder / "old").touch()
        with writer(folder) as partial:
            (partial / "deep").mkdir()
            (partial / "deep" / "new").touch()
        assert {path.name for path in folder.rglob("*")} == kept
        with pytest.raises(ArithmeticError):
            _fail_in(writer, folder)
        assert {path.name for path in folder.rglob("*")} == kept
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _fail_in(writer, folder: Path) -> None:
    with writer(folder) as partial:
        (partial / "half").touch()
        raise ArithmeticError


def unlike_their_names(root: Path) -> list[str]:
    """Return the objects of DVC's cache whose content is not what their name says."""
    objects = [path for path in (root / ".dvc/cache/files/md5").glob("??/*") if path.is_file()]
    assert objects
    return [
        f"{path.parent.name}{path.name}"
        for path in objects
        if hashlib.md5(path.read_bytes()).hexdigest() != (path.parent.name + path.name).removesuffix(".dir")  # noqa: S324
    ]


def test_a_stage_over_linked_outputs_leaves_the_cache_alone(tmp_path):
    """A judge's value is put back and its files linked to the cache again; then the stage writes other ones there."""
    root = tmp_path / "repository"
    make_repository(root)
    judge = root / "experiments/judge/ngram.yaml"
    run(root, "dvc", "repro", "judge@ngram")
    first = (root / "artifacts/judges/ngram/calibration.json").read_bytes()
    edit(judge, {"discount": 0.6})
    run(root, "dvc", "repro", "judge@ngram")
    assert (root / "artifacts/judges/ngram/calibration.json").read_bytes() != first
    run(root, "git", "checkout", "experiments/judge/ngram.yaml")
    said = run(root, "dvc", "repro", "judge@ngram")
    assert "Stage 'judge@ngram' is cached" in said
    links = [path for path in (root / "artifacts/judges/ngram").iterdir() if path.stat().st_nlink > 1]
    edit(judge, {"discount": 0.6})
    run(root, "python", "-m", "stages.judge", "ngram")
    assert unlike_their_names(root) == []
    assert links, "DVC linked nothing, so this proves nothing"
    run(root, "git", "checkout", "experiments/judge/ngram.yaml")
    run(root, "dvc", "repro", "judge@ngram")
    assert (root / "artifacts/judges/ngram/calibration.json").read_bytes() == first
    assert "up to date" in run(root, "dvc", "status", "judge@ngram")

"""Nothing at import needs one kind of system."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix")
PROGRAM = f"""
import builtins, importlib, pathlib

imported = builtins.__import__

def without_unix(name, globals=None, *rest, **named):
    importer = (globals or {{}}).get("__name__") or ""
    if name in {UNIX_ONLY!r} and importer.partition(".")[0] in ("alignslm", "stages"):
        raise ModuleNotFoundError(f"{{importer}} imports {{name}}, which Windows does not have")
    return imported(name, globals, *rest, **named)

builtins.__import__ = without_unix
files = [file for top in ("alignslm", "stages") for file in pathlib.Path(top).rglob("*.py")]
for file in files:
    if file.name != "__main__.py":
        importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
print(len(files))
"""


def test_every_module_is_imported_without_what_unix_alone_has():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 200

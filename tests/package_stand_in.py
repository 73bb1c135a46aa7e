"""Python packages as an installer leaves them, made of files and put on the import path."""

import sys
from pathlib import Path


def install(monkeypatch, site: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """Write the files and their record below `site`, which becomes a place that packages are found in."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    everything = {**files, f"{info}/METADATA": metadata}
    everything[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*everything, f"{info}/RECORD"]).encode()
    for file, content in everything.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_bytes(content)
    if str(site) not in sys.path:
        monkeypatch.syspath_prepend(str(site))

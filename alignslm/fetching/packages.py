"""Files of installed Python packages: one file in place, several as a folder in the cache, parts joined."""

import re
import shutil
from collections import defaultdict
from pathlib import Path

from huggingface_hub.utils import WeakFileLock  # public, but not in its __all__

from alignslm.config.sources import PackageSource
from alignslm.fetching import FetchError, reraise_disk_errors
from alignslm.fetching.url import CACHE_VARIABLE, cache_folder
from alignslm.provenance import content_id, file_sha256
from alignslm.storage import atomic_write, replacing_folder

_PART = re.compile(r"(?P<name>.+)\.part(?P<number>\d+)")


def installed_files(source: PackageSource) -> Path:
    """Return the one file that the source chooses (parts make one), or the folder of its files.

    FetchError if a package, a file or a part is missing.
    """
    if problem := source.problem():
        raise FetchError(f"package {source.path}: {problem}")
    files = dict(sorted(source.files()))
    joined = _joined(source, files)
    if len(files) == 1 and [*joined] == [*files]:
        return files.popitem()[1]
    place = cache_folder() / "packages" / content_id(*((name, file_sha256(path)) for name, path in files.items()))
    with reraise_disk_errors(source.path, CACHE_VARIABLE):
        place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(place.with_suffix(".lock")):  # two stages may want the same files at once
            if not place.exists():
                _lay(joined, place)
    return place if len(joined) > 1 else place / next(iter(joined))


def _joined(source: PackageSource, files: dict[str, Path]) -> dict[str, list[Path]]:
    """Return the name of each file and the parts that make it, in order."""
    parts: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    for name, path in files.items():
        found = _PART.fullmatch(name)
        parts[found["name"] if found else name][int(found["number"]) if found else 0] = path
    for name, numbered in parts.items():
        numbers = sorted(numbered)
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
            raise FetchError(f"package {source.path}: of {name} there are only the parts {numbers}. Name all packages.")
    return {name: [numbered[number] for number in sorted(numbered)] for name, numbered in parts.items()}


def _lay(files: dict[str, list[Path]], place: Path) -> None:
    with replacing_folder(place) as folder:
        for name, parts in files.items():
            with atomic_write(folder / name) as partial, partial.open("wb") as stream:
                for part in parts:
                    with part.open("rb") as opened:
                        shutil.copyfileobj(opened, stream)

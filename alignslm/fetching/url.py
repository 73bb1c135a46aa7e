"""Single files by URL, and zips: streamed, resumed, verified, and only then moved to their final path."""

import http.client
import lzma
import re
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils import WeakFileLock  # public, but not in its __all__

from alignslm.config.sources import UrlSource
from alignslm.fetching import CACHE_VARIABLE, Fetched, FetchError, cache_folder, reraise_disk_errors
from alignslm.progress import track
from alignslm.provenance import file_sha256
from alignslm.storage import DISK_ERRORS

TIMEOUT_S = 30.0
ATTEMPTS = 3
MAX_NAME_BYTES = 200  # of the 255 that file systems allow
_MIB = 1 << 20
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_NO_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError, RuntimeError)
_REFUSED = " A URL is fetched without a token: for what needs one, use kind: hub, which sends HF_TOKEN."


def place_of(source: UrlSource) -> Path:
    """Return the path of the verified file once fetched, or the folder of its unpacked zip."""
    return cache_folder() / source.sha256 / (_name(source.url).removesuffix(".zip").strip(". ") or "file")


def _name(url: str) -> str:
    """Return a file name for a URL, which may contain anything: `..`, zero bytes, a thousand letters."""
    name = re.sub(r"[\x00-\x1f]", "", unquote(urlsplit(url).path)).rpartition("/")[2]
    return name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")


def beside(place: Path, what: str) -> Path:
    """Return a file of the work in progress, outside the folder in which any name means a verified file."""
    return place.parent.with_name(f"{place.parent.name}.{what}")


def verified_file(source: UrlSource) -> Fetched:
    """Download the file unless it is here, and unpack a zip; see `alignslm.fetching.download`."""
    place = place_of(source)
    if not place.exists():
        with reraise_disk_errors(source.url, CACHE_VARIABLE):
            place.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(beside(place, "lock")):  # two stages may want the same file at once
                if not place.exists():
                    _fetch(source, place)
    return Fetched(_inner_folder(place), f"sha256:{source.sha256}")


def is_whole(source: UrlSource) -> bool:
    """Return whether the file is complete but not verified yet, for example downloaded by hand."""
    part = beside(place_of(source), "part")
    return part.is_file() and file_sha256(part) == source.sha256


def _fetch(source: UrlSource, place: Path) -> None:
    part = beside(place, "part")
    found = source.sha256 if is_whole(source) else _downloaded(source.url, part)
    if found != source.sha256:
        num_bytes = part.stat().st_size
        part.unlink()
        raise FetchError(
            f"{source.url}: its {num_bytes} bytes have sha256 {found}, but the configuration promises {source.sha256}. "
            "The file has changed or the promise is wrong; nothing was kept. If you trust this file, write its hash."
        )
    if _name(source.url).endswith(".zip"):
        _unpack(part, place, source.url)
        part.unlink()
    else:
        part.rename(place)


def _downloaded(url: str, part: Path) -> str:
    _download(url, part)
    return file_sha256(part)


def _download(url: str, part: Path) -> None:
    """Append to `part` until the file is complete; each attempt resumes where the last one stopped."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download_rest(url, part)
        except urllib.error.HTTPError as error:
            hint = _REFUSED if error.code in (401, 403) else " Check the URL, or try again later."
            raise FetchError(f"{url}: the server answers {error.code} ({error.reason}).{hint}") from error
        except _BROKEN as error:
            if attempt == ATTEMPTS:
                raise FetchError(_unreachable(url, part, error)) from error
        else:
            return


def _unreachable(url: str, part: Path, error: Exception) -> str:
    kept = f"{part.stat().st_size} bytes are kept, and the next run resumes there. " if part.exists() else ""
    return (
        f"{url} cannot be fetched: {getattr(error, 'reason', error)}. {kept}"
        "Check the network, or fetch the file elsewhere and name it with kind: folder."
    )


def _download_rest(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 (http by config)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # nothing is left: the hash decides
            return
        raise
    with answer, part.open("ab" if answer.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as stream:
        left = int(answer.headers.get("Content-Length") or 0)
        _require_space(part.parent, left, url)
        for block in track(_blocks(answer), total=-(-left // _MIB), label=f"{PurePosixPath(url).name}, MiB"):
            stream.write(block)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while block := answer.read(_MIB):
        yield block


def _require_space(folder: Path, num_bytes: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise FetchError(
            f"{what} needs {num_bytes / _MIB:.0f} MiB, but {folder} has {free / _MIB:.0f} MiB left. "
            f"Make room, or let {CACHE_VARIABLE} name a folder on a larger disk."
        )


def _unpack(archive: Path, place: Path, url: str) -> None:
    """Unpack next to `place` and move there at once, so that an existing folder is complete."""
    rough = beside(place, "unpacking")
    shutil.rmtree(rough, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for member in members:
                _require_inside(member, url)
            _require_space(place.parent, sum(member.file_size for member in members), url)
            opened.extractall(rough)
    except FetchError:
        raise
    except (*_NO_ZIP, OSError) as error:  # OSError: a name too long, or one that is both a file and a folder
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise FetchError(f"{url}: the hash is right, but it cannot be unpacked as zip: {error}") from error
    rough.rename(place)


def _require_inside(member: zipfile.ZipInfo, url: str) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    has_drive = bool(name.parts) and ":" in name.parts[0]
    if name.is_absolute() or has_drive or ".." in name.parts or stat.S_ISLNK(member.external_attr >> 16):
        raise FetchError(
            f"{url}: its member {member.filename!r} points outside the folder it is unpacked to, as no honest archive "
            "does. Nothing was unpacked."
        )


def _inner_folder(place: Path) -> Path:
    """Enter a folder with only one folder in it, as most archives have."""
    while place.is_dir():
        inside = [path for path in place.iterdir() if path.name != "__MACOSX"]
        if len(inside) != 1 or not inside[0].is_dir():
            break
        place = inside[0]
    return place

"""Fetching over real HTTP from loopback: once, resumed, verified, offline; every refusal by its full message."""

import hashlib
import io
import os
import shutil
import stat
import zipfile
from collections import namedtuple
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub.constants
import pytest
from pydantic import TypeAdapter, ValidationError

from alignslm.config.sources import FolderSource, HubSource, Source, UrlSource
from alignslm.fetching import FetchError, download, download_recorded, is_cached
from alignslm.fetching import url as url_module
from tests.messages import names
from tests.tiny_hub import Served, commit_of, point_hub_at, serving

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several blocks
REPO = "lab/model"
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 999, "notes/readme.md": b"read me"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNSLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with serving() as served:
        point_hub_at(served.url, monkeypatch)
        yield served


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def by_url(server: Served, name: str, content: bytes, *, promised: str | None = None) -> UrlSource:
    server.files[name] = content
    return UrlSource(kind="url", url=f"{server.url}/{name}", sha256=promised or sha256(content))


def hub(revision: str = "main", repo: str = REPO) -> HubSource:
    return HubSource(kind="hub", repo=repo, revision=revision)


def zipped(files: dict[str, bytes], *, link: str | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


def message(source: Source) -> str:
    with pytest.raises(FetchError) as error:
        download(source)
    return str(error.value)


# ---- URLs ----


def test_a_file_is_fetched_once_and_then_found_without_network(server, tmp_path):
    server.files["twist/km 500.bin"] = CONTENT
    source = UrlSource(kind="url", url=f"{server.url}/twist/km%20500.bin", sha256=sha256(CONTENT))
    assert not is_cached(source)
    first = download(source)
    assert first == (tmp_path / "cache" / sha256(CONTENT) / "km 500.bin", f"sha256:{sha256(CONTENT)}")
    assert first.path.read_bytes() == CONTENT
    server.files.clear()
    assert is_cached(source)
    assert download(source) == first
    assert len(server.requests) == 1


def test_two_codebooks_of_one_name_never_meet(server):
    one, two = by_url(server, "a/km.bin", b"one"), by_url(server, "b/km.bin", b"two")
    assert (download(one).path.read_bytes(), download(two).path.read_bytes()) == (b"one", b"two")


def test_a_broken_connection_is_resumed_where_it_broke(server):
    source = by_url(server, "big.bin", CONTENT)
    server.broken_after["big.bin"] = [2_000_000]
    assert download(source).path.read_bytes() == CONTENT
    assert [found for *_, found in server.requests] == [None, "bytes=2000000-"]


def test_the_next_run_goes_on_where_the_last_gave_up(server):
    source = by_url(server, "big.bin", CONTENT)
    server.broken_after["big.bin"] = [1000, 500, 7]
    left = len(CONTENT) - 1507
    names(message(source), "kind: folder", source.url, left, "1507 bytes")
    assert download(source).path.read_bytes() == CONTENT
    assert server.requests[-1][2] == "bytes=1507-"


def test_a_part_that_was_whole_but_not_yet_moved_is_used(server):
    source = by_url(server, "big.bin", CONTENT)
    place = url_module.place_of(source)
    place.parent.mkdir(parents=True)
    place.parent.with_name(f"{source.sha256}.part").write_bytes(CONTENT)
    assert download(source).path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["%2e%2e", "a/%2e%2e", "lock", "part", "unpacking", "x" * 400, "a%00b"])
def test_whatever_a_url_is_called_its_bytes_are_verified_and_lie_in_the_folder_of_their_hash(server, tmp_path, name):
    source = by_url(server, "x", b"what came", promised=sha256(b"what was meant"))
    (tmp_path / "cache" / "another").mkdir(parents=True)
    odd = source.model_copy(update={"url": f"{server.url}/{name}"})
    server.files[name] = server.files[unquote(name)] = b"what came"
    names(message(odd), sha256(b"what came"), source.sha256)
    assert not is_cached(odd)
    server.files[name] = server.files[unquote(name)] = b"what was meant"
    found = download(odd)
    assert found.path.read_bytes() == b"what was meant"
    assert found.path.parent == tmp_path / "cache" / source.sha256


def test_another_file_than_promised_is_not_kept_and_both_hashes_are_shown(server, tmp_path):
    promised = sha256(b"what was meant")
    source = by_url(server, "km.bin", b"what came", promised=promised)
    expected = (
        f"{source.url}: its 9 bytes have sha256 {sha256(b'what came')}, but the configuration promises {promised}. "
        "The file has changed or the promise is wrong; nothing was kept. If you trust this file, write its hash."
    )
    assert (message(source), message(source)) == (expected, expected)
    assert {path.name for path in (tmp_path / "cache").rglob("*")} == {promised, f"{promised}.lock"}


def test_no_network_is_told_with_a_way_out(server):
    source = UrlSource(kind="url", url="http://127.0.0.1:9/km.bin", sha256="0" * 64)
    names(message(source), "Connection refused", "kind: folder", "http://127.0.0.1:9/km.bin")


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (404, "Not Found", "URL"),
        (401, "Unauthorized", "kind: hub"),
    ],
)
def test_a_server_that_refuses(server, status, reason, hint):
    source = by_url(server, "km.bin", b"x")
    server.refuse["km.bin"] = status
    names(message(source), source.url, status, reason, hint)


def test_a_file_larger_than_the_disk_is_refused_before_it_is_read(server, monkeypatch, tmp_path):
    source = by_url(server, "km.bin", CONTENT)
    free = namedtuple("Usage", "total used free")(0, 0, 1 << 20)  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    names(message(source), source.url, "3 MiB", tmp_path / "cache", "1 MiB", "ALIGNSLM_CACHE")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_meanwhile_is_told(server):
    source = by_url(server, "km.bin", CONTENT)
    place = url_module.place_of(source)
    place.parent.mkdir(parents=True)
    place.parent.with_name(f"{source.sha256}.part").symlink_to("/dev/full")
    names(message(source), "No space left on device", source.url, "ALIGNSLM_CACHE")


# ---- Zips ----


def test_a_zip_stands_for_the_folder_it_holds(server):
    source = by_url(server, "TWIST-350M.zip", zipped({"TWIST-350M/config.json": b"{}", "TWIST-350M/w.bin": b"w"}))
    found = download(source)
    assert found.identity == f"sha256:{source.sha256}"
    assert (found.path.name, sorted(path.name for path in found.path.iterdir())) == (
        "TWIST-350M",
        ["config.json", "w.bin"],
    )
    server.files.clear()
    assert download(source) == found
    flat = by_url(server, "flat.zip", zipped({"config.json": b"{}", "sub/w.bin": b"w", "__MACOSX/x": b""}))
    assert (download(flat).path / "sub" / "w.bin").read_bytes() == b"w"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "..\\evil"])
def test_a_zip_that_writes_elsewhere_is_refused_whole(server, name):
    source = by_url(server, "bad.zip", zipped({"good": b"1", name: b"2"}))
    names(message(source), source.url, f"{name!r}", "outside")
    assert not url_module.place_of(source).exists()


def test_a_zip_with_a_link_is_refused(server):
    source = by_url(server, "bad.zip", zipped({}, link="secrets"))
    names(message(source), "'secrets'", "outside")


def odd_zip(how):
    """A zip that opens and cannot be unpacked."""
    if how in {"long", "folder and file"}:
        return zipped({"x" * 300: b"1"} if how == "long" else {"a": b"1", "a/b": b"2"})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.bin", bytes(range(256)) * 40)
    content = bytearray(stream.getvalue())
    if how == "cut inside":
        content[60:90] = b"\xff" * 30
    else:  # the method of compression, in the member's header and in the directory
        for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            at = content.index(mark) + place
            content[at] = 99
    return bytes(content)


@pytest.mark.parametrize("how", ["long", "folder and file", "cut inside", "unknown method"])
def test_an_odd_zip_is_told(server, how):
    source = by_url(server, "odd.zip", odd_zip(how))
    names(message(source), source.url, "cannot be unpacked as zip")


def test_a_zip_that_is_none_is_told(server):
    source = by_url(server, "bad.zip", b"PK or not")
    names(message(source), "File is not a zip file", source.url)


# ---- Folders ----


def test_a_folder_is_known_by_its_content_not_by_its_place(server, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "w.bin").write_bytes(b"w")
        (tmp_path / name / "config.json").write_text("{}")
    one, two = (FolderSource(kind="folder", path=f"$WEIGHTS/{name}") for name in ("one", "two"))
    digest = sha256(f"config.json\0{sha256(b'{}')}\0sub/w.bin\0{sha256(b'w')}\0".encode())
    assert download(one) == (tmp_path / "one", f"sha256:{digest}")
    (tmp_path / "two" / ".cache").mkdir()
    (tmp_path / "two" / ".cache" / "x").write_text("hidden files do not count")
    assert download(two).identity == download(one).identity
    (tmp_path / "two" / "README").write_text("neither do files that nobody asked for")
    assert download(two, patterns=["*.json", "*.bin"]).identity == download(one).identity
    assert download(two).identity != download(one).identity
    file = FolderSource(kind="folder", path="$WEIGHTS/one/sub/w.bin")
    assert download(file) == (tmp_path / "one" / "sub" / "w.bin", f"sha256:{sha256(b'w')}")


def test_faults_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOWHERE", raising=False)
    names(message(FolderSource(kind="folder", path="weights/mine")), "path", f"{tmp_path}/weights/mine")
    names(message(FolderSource(kind="folder", path="$NOWHERE/mine")), "$NOWHERE/mine", "variable")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FetchError) as error:
        download(FolderSource(kind="folder", path="empty"), patterns=["*.json", "*.bin"])
    names(error.value, f"{tmp_path}/empty", "*.json", "*.bin")


# ---- The Hub ----


def test_a_branch_is_resolved_once_and_the_artifact_keeps_its_commit(server, capsys):
    server.repos[REPO] = dict(FILES)
    commit = commit_of(FILES)
    assert not is_cached(hub())
    found = download(hub(), patterns=["*.json", "*.safetensors"])
    assert found.identity == f"hub:{REPO}@{commit}"
    assert sorted(path.name for path in found.path.iterdir()) == ["config.json", "model.safetensors"]
    assert (found.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    names(capsys.readouterr().err.splitlines()[-1], REPO, "main", f"revision: {commit}")
    server.repos[REPO]["config.json"] = b'{"moved": true}'
    assert download_recorded(hub(), found.identity, patterns=["*.json", "*.safetensors"]) == found.path
    assert download(hub(), patterns=["*.json"]).identity == f"hub:{REPO}@{commit_of(server.repos[REPO])}"


def test_a_pinned_snapshot_needs_no_network_and_no_advice(server, monkeypatch, capsys):
    server.repos[REPO] = dict(FILES)
    pinned = hub(commit_of(FILES))
    assert pinned.pinned
    assert not hub().pinned
    found = download(pinned)
    capsys.readouterr()
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    assert (download(pinned), is_cached(pinned)) == (found, True)
    assert "pinned" not in capsys.readouterr().err


def test_faults_of_the_hub(server, monkeypatch):
    server.repos[REPO] = dict(FILES)
    names(message(hub(repo="lab/none")), "repo", "Hub", "lab/none", "HF_TOKEN")
    names(message(hub("v9")), "Hub", "lab/model", "revision 'v9'")
    with pytest.raises(FetchError) as error:
        download(hub(), patterns=["*.pt"])
    names(error.value, "Hub", "lab/model", "main", "*.pt")
    server.refuse[REPO] = 403
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    names(message(hub(commit_of({}))), "Hub", "gated", "HF_TOKEN", "https://huggingface.co/lab/model", "token")


def test_the_hub_out_of_reach(server, monkeypatch):
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    names(
        message(hub()),
        "Connection refused",
        "kind: folder",
        "Hub",
        "lab/model",
        "ConnectError",
        "HF_HUB_OFFLINE",
    )


# ---- An artifact's weights later ----


def test_weights_that_changed_since_the_artifact_was_made_are_refused(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(b"then")
    source = FolderSource(kind="folder", path=str(path))
    before = download(source).identity
    assert download_recorded(source, before) == path
    path.write_bytes(b"now")
    with pytest.raises(FetchError) as error:
        download_recorded(source, before)
    names(error.value, "dvc repro --force STAGE", path, f"sha256:{sha256(b'now')}", f"sha256:{sha256(b'then')}")


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "url", "url": "https://x.org/km.bin"},
        {"kind": "url", "url": "https://x.org/km.bin", "sha256": "abc"},
        {"kind": "url", "url": "file:///etc/passwd", "sha256": "0" * 64},
        {"kind": "hub", "repo": "lab/model"},
        {"kind": "hub", "repo": "model", "revision": "main"},
        {"kind": "s3", "path": "x"},
    ],
)
def test_sources_that_are_none(source):
    with pytest.raises(ValidationError):
        TypeAdapter(Source).validate_python(source)


def test_the_cache_has_a_default_place(monkeypatch):
    monkeypatch.delenv("ALIGNSLM_CACHE", raising=False)
    assert url_module.cache_folder() == Path(os.path.expanduser("~/.cache/alignslm"))  # noqa: PTH111

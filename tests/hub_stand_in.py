"""A stand-in of the Hub on loopback that takes pushes: repositories with commits, tags, LFS objects and rights.

The real client talks to it over HTTP. It answers as the Hub does, as far as publishing and loading need it.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

TOKEN = "hf_" + "w" * 34  # of the account `me`, which may write
READER = "hf_" + "r" * 34  # of the same account, and may not
LARGE = (".safetensors", ".parquet")
REPO = r"(?P<kind>api/models|api/datasets|datasets|)/?(?P<repo>[^/]+/[^/]+)"


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        oid = self.head.oid if revision in {"main", "refs/heads/main"} else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    def add(self, message: str, files: dict[str, bytes]) -> Commit:
        oid = hashlib.sha1(repr((len(self.commits), message, sorted(files))).encode()).hexdigest()  # noqa: S324
        self.commits.append(Commit(oid, message, files))
        return self.head


@dataclass
class Hub:
    """State of the server; tests read and change it while it runs. Repositories are keyed by (type, id)."""

    url: str
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS, by sha256
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # method and part of a path -> status, message
    stall_after: int | None = None  # uploads of large files before the next ones hang
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def sent(self, method: str, part: str = "") -> list[str]:
        """Return the paths asked for by a method, those that hold a part."""
        return [path for done, path in self.requests if done == method and part in path]

    def stored(self) -> bytes:
        """Return everything that anybody could read."""
        texts = [commit.message.encode() for repo in self.repos.values() for commit in repo.commits]
        files = [
            content for repo in self.repos.values() for commit in repo.commits for content in commit.files.values()
        ]
        return b"\n".join([*texts, *files, *self.objects.values()])


@contextmanager
def serving() -> Iterator[Hub]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.hub
    finally:
        server.hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """Say nothing of a client that was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD  # noqa: N815 (http.server's names)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    @property
    def hub(self) -> Hub:
        return self.server.hub

    @property
    def token(self) -> str:
        return (self.headers.get("authorization") or "").removeprefix("Bearer ")

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        body = self._body()
        self.hub.requests.append((self.command, path))
        for part, (status, message) in self.hub.refuse.items():
            method, _, within = part.partition(" ")
            if method == self.command and within in path:
                return self._json({"error": message}, status)
        if self.token and self.token not in {TOKEN, READER}:
            return self._refused(401, "Invalid credentials in Authorization header")
        return self._account(path, body) if not self._repository(path, body) else None

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _account(self, path: str, body: bytes) -> None:
        if path == "api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "api/repos/create":
            return self._create(json.loads(body))
        if path == "api/whoami-v2" and self.token:
            return self._json({"name": "me", "type": "user", "auth": {"type": "access_token"}})
        if path.startswith("lfs/"):
            return self._large(path.removeprefix("lfs/"), body)
        return self._refused(404, "Not found")

    def _validate(self, card: str) -> None:
        found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
        try:
            content = YAML(typ="safe", pure=True).load(found[1]) if found else None
        except YAMLError as error:
            return self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        missing = [] if isinstance(content, dict) else [{"message": "empty or missing yaml metadata in repo card"}]
        return self._json({"errors": [], "warnings": missing})

    def _create(self, asked: dict) -> None:
        owner, kind = asked.get("organization") or "me", asked.get("type", "model")
        if not self.token:
            return self._refused(401, "Invalid username or password.")
        if self.token != TOKEN or owner != "me":
            return self._refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        key = (kind, f"{owner}/{asked['name']}")
        if key in self.hub.repos:
            return self._refused(409, f"You already created this {kind} repo")
        self.hub.repos[key] = Repo(private=asked.get("visibility") == "private")
        self.hub.repos[key].add("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self._json({"url": f"{self.hub.url}/{key[1]}", "name": key[1], "id": "0"})

    def _large(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            if self.hub.stall_after is not None and len(self.hub.objects) >= self.hub.stall_after:
                self.hub.stalled.set()
                self.hub.released.wait()
            if hashlib.sha256(body).hexdigest() != oid:
                return self._refused(400, "another content than promised")
            self.hub.objects[oid] = body
        return self._json({})

    def _repository(self, path: str, body: bytes) -> bool:
        """Answer what is about a repository; False where the path is about none."""
        batch = re.fullmatch(REPO + r"\.git/info/lfs/objects/batch", path)
        found = batch or re.fullmatch(
            REPO + r"(?:/(?P<what>revision|tree|resolve|refs|preupload|commit|tag|paths-info)(?:/(?P<rest>.*))?)?", path
        )
        if not found or found["repo"].startswith(("api/", "lfs/")):
            return False
        kind = "dataset" if "datasets" in found["kind"] else "model"
        repo = self.hub.repos.get((kind, found["repo"]))
        if repo is None or (repo.private and not self.token):
            self._refused(401 if not self.token else 404, "Repository not found", "RepoNotFound")
        elif batch:
            self._batch(json.loads(body))
        else:
            self._on(repo, kind, found["repo"], found["what"], found["rest"] or "", body)
        return True

    def _on(  # noqa: C901, PLR0911 (one arm a request)
        self, repo: Repo, kind: str, name: str, what: str | None, rest: str, body: bytes
    ) -> None:
        if what in {"preupload", "commit", "tag"} and (self.token != TOKEN or not name.startswith("me/")):
            return self._refused(403, "Authorization error.")
        if what == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in repo.tags.items()]
            return self._json({"branches": [main], "converts": [], "tags": tags})
        if what == "tag" and self.command == "DELETE":
            return self._json({}) if repo.tags.pop(rest, None) else self._refused(404, "no such tag")
        revision, _, file = rest.partition("/")
        commit = repo.at(revision or "main")
        if commit is None:
            return self._refused(404, "Invalid rev id", "RevisionNotFound")
        match what:
            case "preupload":
                return self._json({"files": [_mode(asked, commit) for asked in json.loads(body)["files"]]})
            case "commit":
                return self._commit(repo, kind, name, body)
            case "tag":
                tag = json.loads(body)["tag"]
                if tag in repo.tags:
                    return self._refused(409, "Tag reference exists already")
                repo.tags[tag] = commit.oid
                return self._json({})
            case "tree":
                return self._json(_tree(commit, file, recursive="recursive=True" in self.path))
            case "paths-info":
                return self._json([entry for asked in _paths(body) for entry in _info(commit, asked)])
            case "resolve":
                return self._resolve(commit, file)
            case _:
                siblings = [{"rfilename": path, "size": len(content)} for path, content in commit.files.items()]
                return self._json(
                    {"id": name, "sha": commit.oid, "private": repo.private, "siblings": siblings, "tags": []}
                )

    def _batch(self, asked: dict) -> None:
        objects = []
        for item in asked["objects"]:
            place = {"href": f"{self.hub.url}/lfs/{item['oid']}"}
            actions = {} if item["oid"] in self.hub.objects else {"actions": {"upload": place, "verify": place}}
            objects.append({**item, **actions})
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repo: Repo, kind: str, name: str, body: bytes) -> None:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", repo.head.oid) != repo.head.oid:
            return self._refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self._refused(400, f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        commit = repo.add(header["value"]["summary"], files)
        prefix = "datasets/" if kind == "dataset" else ""
        return self._json({"commitUrl": f"{self.hub.url}/{prefix}{name}/commit/{commit.oid}", "commitOid": commit.oid})

    def _resolve(self, commit: Commit, file: str) -> None:
        if file not in commit.files:
            return self._refused(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.oid})
        content = commit.files[file]
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        start, end = (int(found[1]), int(found[2] or len(content) - 1)) if found else (0, len(content) - 1)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{_oid(file, content)}"', "Accept-Ranges": "bytes"}
        if found:
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._send(206 if found else 200, content[start : end + 1], headers)

    def _refused(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Code": code} if code else {}
        self._json({"error": message}, status, {"X-Error-Message": message, **named, **(headers or {})})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(path: str, content: bytes) -> str:
    """Return the name of a content: sha256 of large files, git's of others."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324


def _mode(asked: dict, commit: Commit) -> dict:
    path = asked["path"]
    known = {"oid": _oid(path, commit.files[path])} if path in commit.files else {}
    return {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False, **known}


def _entry(path: str, content: bytes) -> dict:
    large = {"lfs": {"oid": _oid(path, content), "size": len(content), "pointerSize": 130}}
    return {
        "type": "file",
        "oid": _oid(path, content),
        "size": len(content),
        "path": path,
        **(large if path.endswith(LARGE) else {}),
    }


def _tree(commit: Commit, below: str, *, recursive: bool) -> list[dict]:
    prefix = f"{below.rstrip('/')}/" if below else ""
    inside = {path: content for path, content in commit.files.items() if path.startswith(prefix)}
    folders = sorted(
        {prefix + path.removeprefix(prefix).split("/")[0] for path in inside if "/" in path[len(prefix) :]}
    )
    shown = (
        inside if recursive else {path: content for path, content in inside.items() if "/" not in path[len(prefix) :]}
    )
    entries = [_entry(path, content) for path, content in shown.items()]
    return entries + [{"type": "directory", "oid": "0", "size": 0, "path": folder} for folder in folders]


def _info(commit: Commit, path: str) -> list[dict]:
    if path in commit.files:
        return [_entry(path, commit.files[path])]
    if any(name.startswith(f"{path}/") for name in commit.files):
        return [{"type": "directory", "oid": "0", "size": 0, "path": path}]
    return []


def _paths(body: bytes) -> list[str]:
    text = body.decode()
    if text.startswith("{"):
        paths = json.loads(text)["paths"]
        return paths if isinstance(paths, list) else [paths]
    return [unquote(part.partition("=")[2]).replace("+", " ") for part in text.split("&") if part.startswith("paths=")]

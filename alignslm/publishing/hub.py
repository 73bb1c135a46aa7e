"""One push: a repository of our own, one commit with everything, a tag, and nothing sent twice."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors, get_token

from alignslm import __version__
from alignslm.provenance import file_sha256
from alignslm.publishing import PublishError, PushedFile, PushRecord
from alignslm.publishing.hub_errors import explain_hub_error
from alignslm.publishing.model import Bundle
from alignslm.storage import temporary_folder

MANIFEST = "alignslm.json"  # marks a repository as ours, and lists our files in it
UNTRACKED_FILES = {".gitattributes", "README.md"}  # the files of a repository created on the website
RepoType = Literal["model", "dataset"]
_SECRET = re.compile(rb"hf_[A-Za-z0-9]{30,}")
_TEXT_BYTES = 1 << 22  # weights and audio are larger


class Target(NamedTuple):
    """The destination of a bundle; `message` is the commit message."""

    repo: str
    repo_type: RepoType
    private: bool
    tag: str
    message: str


class _Head(NamedTuple):
    """A repository before a push: its last commit, and the files of earlier pushes."""

    commit: str
    private: bool
    ours: frozenset[str]


def with_manifest(bundle: Bundle, **about: str) -> Bundle:
    """Return the bundle with a manifest of its files and hashes, which the next push reads."""
    files = {name: digest.sha256 for name, digest in digests(bundle).items()}
    content = {"alignslm": __version__, **about, "files": files}
    return {**bundle, MANIFEST: (json.dumps(content, indent=1) + "\n").encode()}


def digests(bundle: Bundle) -> dict[str, PushedFile]:
    """Return the hash and size of every file in a bundle, by name."""
    return {name: _digest(bundle[name]) for name in sorted(bundle)}


def _digest(file: Path | bytes) -> PushedFile:
    if isinstance(file, bytes):
        return PushedFile(sha256=hashlib.sha256(file).hexdigest(), num_bytes=len(file))
    return PushedFile(sha256=file_sha256(file), num_bytes=file.stat().st_size)


def require_token() -> str:
    """Return the account's token. PublishError if there is none."""
    token = get_token()
    if not token:
        raise PublishError(
            "no Hub token was found, so nothing was pushed. Set HF_TOKEN to a token with write access "
            "(https://huggingface.co/settings/tokens), or run `hf auth login`."
        )
    return token


def push(bundle: Bundle, target: Target) -> PushRecord:
    """Commit the bundle to the repository in one commit, tag it, and return what was pushed.

    Files of an earlier push that the bundle lacks are removed in the same commit; other people's files stay. Files
    that the Hub already has are not sent, and nothing is committed if nothing changed. If the push fails, the
    repository stays at its last commit and the same call resumes. PublishError: no token, no write access, not our
    repository, unreachable.
    """
    token = require_token()
    require_no_secret(bundle, token)
    api = HfApi(token=token)
    with _reraise_hub_errors(target, token):
        head = _opened(api, target)
        stale = sorted(head.ours - bundle.keys())
        commit = api.create_commit(
            target.repo,
            repo_type=target.repo_type,
            operations=[
                *(CommitOperationAdd(name, _content(bundle[name])) for name in sorted(bundle)),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=target.message,
            parent_commit=head.commit,
        )
        _tag(api, target, commit.oid)
    return PushRecord(
        repo=target.repo,
        repo_type=target.repo_type,
        endpoint=constants.ENDPOINT,
        private=head.private,
        commit=commit.oid,
        tag=target.tag,
        files=digests(bundle),
    )


def _content(file: Path | bytes) -> str | bytes:
    return file if isinstance(file, bytes) else str(file)


def require_no_secret(bundle: Bundle, token: str) -> None:
    """Raise PublishError if a text file contains the token, or anything that looks like one."""
    for name, file in sorted(bundle.items()):
        if isinstance(file, Path) and file.stat().st_size > _TEXT_BYTES:
            continue
        content = file if isinstance(file, bytes) else file.read_bytes()
        if token.encode() in content or _SECRET.search(content):
            where = f" (made of {file})" if isinstance(file, Path) else ""
            raise PublishError(
                f"{name}{where} contains a Hub token, so nothing was pushed. Remove it and use HF_TOKEN or "
                "`hf auth login`; revoke a token that was ever written to a file."
            )


def _opened(api: HfApi, target: Target) -> _Head:
    """Return the repository's state; create it if it does not exist. PublishError if it is not ours to write."""
    try:
        info = api.repo_info(target.repo, repo_type=target.repo_type)
    except errors.RepositoryNotFoundError:
        api.create_repo(target.repo, repo_type=target.repo_type, private=target.private)
        info = api.repo_info(target.repo, repo_type=target.repo_type)
    if target.private and not info.private:
        raise PublishError(
            f"{target.repo} is public, but publishing is set to `private: true`; nothing was pushed. Make it private "
            "in its settings on the Hub, choose another repository, or set private: false."
        )
    names = set(api.list_repo_files(target.repo, repo_type=target.repo_type, revision=info.sha))
    if MANIFEST not in names and names - UNTRACKED_FILES:
        raise PublishError(
            f"{target.repo} exists and has files that alignslm did not push ({_some(names - UNTRACKED_FILES)}); "
            "nothing was pushed, so nothing is overwritten. Choose another repository, or empty that one."
        )
    ours = _manifest(api, target, str(info.sha)) & names if MANIFEST in names else set()
    return _Head(str(info.sha), bool(info.private), frozenset(ours))


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f", ... {len(names)} in all" if len(names) > len(shown) else "")


def _manifest(api: HfApi, target: Target, commit: str) -> set[str]:
    with temporary_folder() as folder:
        path = api.hf_hub_download(
            target.repo, MANIFEST, repo_type=target.repo_type, revision=commit, local_dir=folder
        )  # fmt: skip
        content: Mapping[str, object] = json.loads(Path(path).read_text())
    files = content.get("files")
    return set(files) if isinstance(files, dict) else set()


def _tag(api: HfApi, target: Target, commit: str) -> None:
    """Set the tag to the commit; move it if an earlier push of the same experiment set it."""
    refs = api.list_repo_refs(target.repo, repo_type=target.repo_type)
    at = {ref.name: ref.target_commit for ref in refs.tags}
    if at.get(target.tag) == commit:
        return
    if target.tag in at:
        api.delete_tag(target.repo, tag=target.tag, repo_type=target.repo_type)
    api.create_tag(target.repo, tag=target.tag, revision=commit, repo_type=target.repo_type)


@contextmanager
def _reraise_hub_errors(target: Target, token: str) -> Iterator[None]:
    """Reraise errors of the client as one PublishError with the token removed from the message."""
    try:
        yield
    except PublishError:
        raise
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        message = explain_hub_error(error, target.repo, target.repo_type).replace(token, "<token>")
        raise PublishError(message) from None  # the chain may quote headers

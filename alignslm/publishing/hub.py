"""One push: a repository that is ours, one commit that holds everything, a tag, and nothing twice."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors, get_token

from alignslm import __version__
from alignslm.provenance import file_sha256
from alignslm.publishing import PublishError, PushedFile, PushRecord
from alignslm.publishing.hub_errors import explain_hub_error
from alignslm.publishing.model import Bundle

MANIFEST = "alignslm.json"  # says that a repository is ours, and which of its files are
UNTRACKED_FILES = {".gitattributes", "README.md"}  # what a repository made on the website begins with
RepoType = Literal["model", "dataset"]
_SECRET = re.compile(rb"hf_[A-Za-z0-9]{30,}")
_TEXT_BYTES = 1 << 22  # weights and audio are larger, and no place for a token


class Target(NamedTuple):
    """Where a bundle goes. `message` becomes the commit's."""

    repo: str
    repo_type: RepoType
    private: bool
    tag: str
    message: str


class _Head(NamedTuple):
    """A repository as it is before a push: its last commit, and the names that former pushes answer for."""

    commit: str
    private: bool
    ours: frozenset[str]


def with_manifest(bundle: Bundle, **about: str) -> Bundle:
    """Return the bundle with a list of its files and their hashes, by which the next push knows the repository."""
    files = {name: digest.sha256 for name, digest in digests(bundle).items()}
    content = {"alignslm": __version__, **about, "files": files}
    return {**bundle, MANIFEST: (json.dumps(content, indent=1) + "\n").encode()}


def digests(bundle: Bundle) -> dict[str, PushedFile]:
    """Return what every file of a bundle is, by name."""
    return {name: _digest(bundle[name]) for name in sorted(bundle)}


def _digest(file: Path | bytes) -> PushedFile:
    if isinstance(file, bytes):
        return PushedFile(sha256=hashlib.sha256(file).hexdigest(), num_bytes=len(file))
    return PushedFile(sha256=file_sha256(file), num_bytes=file.stat().st_size)


def require_token() -> str:
    """Return the account's token. PublishError where there is none."""
    token = get_token()
    if not token:
        raise PublishError(
            "no token of the Hub was found, so nothing was pushed. Set HF_TOKEN to one that may write "
            "(https://huggingface.co/settings/tokens), or run `hf auth login`."
        )
    return token


def push(bundle: Bundle, target: Target) -> PushRecord:
    """Make the repository hold the bundle in one commit, tag it, and return what was pushed.

    Files of a former push that the bundle lacks go in the same commit; files that somebody else put there stay. What
    the Hub has already is not sent, and where nothing differs there is no commit. Whatever breaks, the repository
    shows its last commit, and the same call goes on. PublishError: no token, no right, not ours, unreachable.
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
    """Raise PublishError where a file of text holds the token, or anything that looks like one."""
    for name, file in sorted(bundle.items()):
        if isinstance(file, Path) and file.stat().st_size > _TEXT_BYTES:
            continue
        content = file if isinstance(file, bytes) else file.read_bytes()
        if token.encode() in content or _SECRET.search(content):
            where = f" (made of {file})" if isinstance(file, Path) else ""
            raise PublishError(
                f"{name}{where} holds a token of the Hub, so nothing was pushed. Take it out and let HF_TOKEN hold it, "
                "or `hf auth login`; a token that was ever written to a file is best revoked."
            )


def _opened(api: HfApi, target: Target) -> _Head:
    """Return the repository's state, creating it where it is not there. PublishError where it is not ours to write."""
    try:
        info = api.repo_info(target.repo, repo_type=target.repo_type)
    except errors.RepositoryNotFoundError:
        api.create_repo(target.repo, repo_type=target.repo_type, private=target.private)
        info = api.repo_info(target.repo, repo_type=target.repo_type)
    if target.private and not info.private:
        raise PublishError(
            f"{target.repo} is public, but publishing is set to `private: true`; nothing was pushed. Make it private "
            "in its settings on the Hub, name another repository, or write private: false."
        )
    names = set(api.list_repo_files(target.repo, repo_type=target.repo_type, revision=info.sha))
    if MANIFEST not in names and names - UNTRACKED_FILES:
        raise PublishError(
            f"{target.repo} exists and holds files that no push of alignslm made ({_some(names - UNTRACKED_FILES)}); "
            "nothing was pushed, so nothing is overwritten. Name another repository, or empty that one."
        )
    ours = _manifest(api, target, str(info.sha)) & names if MANIFEST in names else set()
    return _Head(str(info.sha), bool(info.private), frozenset(ours))


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f", ... {len(names)} in all" if len(names) > len(shown) else "")


def _manifest(api: HfApi, target: Target, commit: str) -> set[str]:
    with TemporaryDirectory() as folder:
        path = api.hf_hub_download(
            target.repo, MANIFEST, repo_type=target.repo_type, revision=commit, local_dir=folder
        )  # fmt: skip
        content: Mapping[str, object] = json.loads(Path(path).read_text())
    files = content.get("files")
    return set(files) if isinstance(files, dict) else set()


def _tag(api: HfApi, target: Target, commit: str) -> None:
    """Let the tag name the commit; one that a former push of the same experiment left elsewhere moves."""
    refs = api.list_repo_refs(target.repo, repo_type=target.repo_type)
    at = {ref.name: ref.target_commit for ref in refs.tags}
    if at.get(target.tag) == commit:
        return
    if target.tag in at:
        api.delete_tag(target.repo, tag=target.tag, repo_type=target.repo_type)
    api.create_tag(target.repo, tag=target.tag, revision=commit, repo_type=target.repo_type)


@contextmanager
def _reraise_hub_errors(target: Target, token: str) -> Iterator[None]:
    """Turn what the client raises into one PublishError without the token, however it got into a message."""
    try:
        yield
    except PublishError:
        raise
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:  # type: ignore[attr-defined]
        message = explain_hub_error(error, target.repo, target.repo_type).replace(token, "<token>")
        raise PublishError(message) from None  # the chain may quote headers

"""Repositories of the Hugging Face Hub, through huggingface_hub and its cache."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import errors, get_token, snapshot_download

from alignslm.config.sources import HubSource
from alignslm.fetching import Fetched, FetchError, format_patterns, matching_files, reraise_disk_errors


def snapshot(source: HubSource, patterns: Sequence[str] | None) -> Fetched:
    """Download the files that the patterns choose, or find them in the cache; see `alignslm.fetching.download`."""
    with _reraise_hub_errors(source), reraise_disk_errors(f"the Hub repository {source.repo}", "HF_HOME"):
        folder = Path(
            snapshot_download(
                source.repo,
                repo_type=source.repo_type,
                revision=source.revision,
                allow_patterns=_listed(patterns),
            )
        )
    if not matching_files(folder, patterns):
        raise FetchError(
            f"the Hub repository {source.repo} at {source.revision} has no file like {format_patterns(patterns)}."
        )
    commit = folder.name  # huggingface_hub resolves branches and files each snapshot under its commit
    if not source.pinned:
        advice = f"to pin it, write revision: {commit}"
        print(f"{source.repo}: revision {source.revision} is not pinned, it is {commit} now; {advice}", file=sys.stderr)
    return Fetched(folder, f"hub:{source.repo}@{commit}")


def is_cached(source: HubSource, patterns: Sequence[str] | None) -> bool:
    """Return whether all files that match the patterns are on this machine."""
    try:
        snapshot_download(
            source.repo,
            repo_type=source.repo_type,
            revision=source.revision,
            allow_patterns=_listed(patterns),
            local_files_only=True,
        )
    except errors.LocalEntryNotFoundError:
        return False
    return True


def _listed(patterns: Sequence[str] | None) -> list[str] | None:
    return None if patterns is None else list(patterns)


@contextmanager
def _reraise_hub_errors(source: HubSource) -> Iterator[None]:
    try:
        yield
    except (errors.HFValidationError, errors.LocalEntryNotFoundError, errors.HTTPError) as error:
        raise FetchError(f"the Hub repository {source.repo} {_fault(error, source)}") from error


def refused(error: Exception, source: HubSource) -> str | None:
    """Return why the Hub does not give a repository, and what to do; None for errors of another kind.

    The token itself is never shown.
    """
    token = "HF_TOKEN is set but has no read access" if get_token() else "HF_TOKEN is not set"
    page = f"https://huggingface.co/{'datasets/' if source.repo_type == 'dataset' else ''}{source.repo}"
    faults = {
        errors.GatedRepoError: f"is gated, and {token}. Accept its terms at {page}, then set HF_TOKEN to your token.",
        errors.RepositoryNotFoundError: f"does not exist, or is private and {token}. Check `repo`, or set HF_TOKEN.",
        errors.RevisionNotFoundError: f"has no revision {source.revision!r}. Use an existing branch, tag or commit.",
    }
    return next((fault for kind, fault in faults.items() if isinstance(error, kind)), None)


def _fault(error: Exception, source: HubSource) -> str:
    """Return what is wrong with the repository, and what to do."""
    unreachable = (
        f"at {source.revision} is not complete on this machine, and the Hub cannot be reached ({_first_line(error)}). "
        "Connect to the network (and unset HF_HUB_OFFLINE), or fetch the repository elsewhere and name its folder with "
        "kind: folder."
    )
    faults = {
        errors.HFValidationError: f"has a name that the Hub does not allow: {error}",
        errors.LocalEntryNotFoundError: unreachable,
        errors.HfHubHTTPError: f"cannot be fetched: {_first_line(error)}. If it is private, set HF_TOKEN.",
    }
    other = f"cannot be fetched: {_first_line(error)}. Run again: the download resumes."
    found = next((fault for kind, fault in faults.items() if isinstance(error, kind)), other)
    return refused(error, source) or found


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}".rstrip(" .:")

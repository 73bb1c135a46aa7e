"""The folder in which a sweep runs: a clone of the committed state, with untracked files."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dvc.config import merge
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

from alignslm.config.document import Plain, read_mapping
from alignslm.config.problems import closest_match
from alignslm.storage import copy_file
from alignslm.sweep import SweepError
from alignslm.sweep.settings import PARAMS, Combination

CLONE = Path(".work", "sweep", "clone")
INPUTS = "inputs: "  # of an experiment's message: the git tree that the run was made from
TAKEN = ("experiments", "code")  # folders with untracked files that a run needs
WATCHED = (PARAMS, "dvc.yaml", "code.yaml", "stages", "alignslm", *TAKEN)


class Finished(NamedTuple):
    """An experiment that exists."""

    name: str
    commit: str


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints. Raises SweepError with git's own words."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SweepError(f"`{' '.join(command)}` failed in {folder.resolve()}: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Workspace:
    """The user's experiment, which is only read; finished experiments are added to its git repository."""

    root: Path

    @cached_property
    def commit(self) -> str:
        """The commit that all runs start from."""
        return git(self.root, "rev-parse", "--verify", "HEAD^{commit}")

    @cached_property
    def untracked(self) -> list[str]:
        """Files of TAKEN that are not in the commit, relative to the root."""
        added = git(self.root, "diff", "--cached", "--relative", "--name-only", "--diff-filter=A", "--", *TAKEN)
        others = git(self.root, "ls-files", "--others", "--exclude-standard", "--", *TAKEN)
        return sorted(name for name in [*added.splitlines(), *others.splitlines()] if (self.root / name).is_file())

    @cached_property
    def changed(self) -> list[str]:
        """Files that differ from the commit: the runs do not see these changes."""
        return git(
            self.root, "diff", "HEAD", "--relative", "--name-only", "--diff-filter=a", "--", *WATCHED
        ).splitlines()

    @property
    def references(self) -> str:
        """Where DVC keeps the experiments of the commit."""
        return f"refs/exps/{self.commit[:2]}/{self.commit[2:]}"

    def finished(self) -> dict[str, Finished]:
        """Return the experiments of the commit by the git tree that they were made from; of others, by their name."""
        form = "--format=%(refname)%00%(objectname)%00%(contents:lines=3)%01"
        listed = git(self.root, "for-each-ref", form, f"{self.references}/").split("\x01")
        found = {}
        for name, commit, message in (entry.strip().split("\0") for entry in listed if entry.strip()):
            short = name.removeprefix(f"{self.references}/")
            found[message.partition(INPUTS)[2].strip() or short] = Finished(short, commit)
        return found


@dataclass(frozen=True)
class RunFolder:
    """A clone below .work/ with the workspace's DVC cache. A sweep reuses what a killed one left in it."""

    workspace: Workspace

    @property
    def clone(self) -> Path:
        """The root of the clone."""
        return self.workspace.root / CLONE

    @cached_property
    def experiment(self) -> Path:
        """The experiment in the clone; it may be a subfolder of a git repository."""
        return self.clone / git(self.workspace.root, "rev-parse", "--show-prefix")

    def prepare(self) -> None:
        """Clone the commit over an earlier sweep's files: artifacts and shards stay, its locks are removed."""
        own, root = self.clone / ".git", self.workspace.root
        for left in (own, self.experiment / ".dvc" / "tmp"):
            shutil.rmtree(left, ignore_errors=True)
        self.clone.mkdir(parents=True, exist_ok=True)
        git(self.clone, "init", "-q")
        copy_file(root / git(root, "rev-parse", "--git-common-dir") / "config", own / "config")  # names and filters
        git(self.clone, "fetch", "-q", git(root, "rev-parse", "--show-toplevel"), "HEAD")
        self.reset()
        try:
            with Repo(str(root)) as workspace, Repo(str(self.experiment)) as other:
                settings = workspace.config.read("local")
                merge(settings, {"cache": {"dir": workspace.cache.local_cache_dir}})
                with other.config.edit("local") as own_settings:
                    merge(own_settings, settings)
        except DvcException as error:
            raise SweepError(str(error)) from error

    def reset(self) -> None:
        """Return to the committed state and the workspace's untracked configs; what git ignores stays."""
        git(self.clone, "checkout", "-q", "--detach", "--force", self.workspace.commit)
        git(self.clone, "clean", "-fdq")
        for name in self.workspace.untracked:
            copy_file(self.workspace.root / name, self.experiment / name)

    def write(self, combination: Combination) -> str:
        """Write the values of one run; return the git tree of its inputs, which is its identity.

        Raises SweepError for a key that the file does not have.
        """
        self.reset()
        for file, text in combination.overrides:
            path = self.experiment / file
            if not path.is_file():
                raise SweepError(f"{file}:{text}: no file {file}")
            try:
                apply_overrides(path, [text])
            except DvcException as error:
                raise SweepError(_explain(file, text, read_mapping(path), str(error.__cause__))) from error
        git(self.clone, "add", "--all")
        return git(self.clone, "write-tree")

    def remove(self) -> None:
        """Remove the clone: nothing is left to continue."""
        shutil.rmtree(self.clone, ignore_errors=True)

    def objects(self, tree: str) -> dict[str, str]:
        """Return the object of every file of a tree, by its path in the experiment."""
        lines = git(self.experiment, "ls-tree", "-r", tree, "--format=%(path)%x00%(objectname)").splitlines()
        return dict(line.split("\0") for line in lines)


def _explain(file: str, text: str, values: dict[str, Plain], why: str) -> str:
    key = text.partition("=")[0]
    if key.startswith(("+", "~")):
        return f"{text}: {file}: {' '.join(why.split())}"
    guess = closest_match(key, _keys(values))
    return (
        f"{key}: {file} has no such key{f'; did you mean {guess!r}?' if guess else ''} A new key takes a +: +{key}=..."
    )


def _keys(values: Plain, parent: str = "") -> list[str]:
    """Return every key, dotted."""
    if not isinstance(values, dict):
        return []
    return [name for key, value in values.items() for name in (f"{parent}{key}", *_keys(value, f"{parent}{key}."))]

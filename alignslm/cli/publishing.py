"""`alignslm publish-preview`: what the stage publish would push, as folders to look at."""

from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from alignslm.config.loading import load_experiment
from alignslm.config.presets import preview_values
from alignslm.publishing.pushing import CARD, packages_of, write_preview


def print_preview(name: str, folder: Path, root: Path, *, choice: str | None) -> None:
    """Write the folders and say where they would go; nothing is pushed, and no token is needed."""
    experiment = load_experiment(root)
    if choice is not None:
        experiment = preview_values({"publish": choice}, root, named="--choice").experiment
    with TemporaryDirectory(dir=folder.parent if folder.parent.is_dir() else None) as work:
        packages = packages_of(experiment, name, root, Path(work) / "work")
        write_preview(packages, folder)
    console = Console(highlight=False, soft_wrap=True)
    for kind, package in packages.items():
        target, place = package.target, folder / kind
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        seen = "private" if target.private else "public"
        told = f"{len(package.bundle)} files, {size / 1e6:.1f} MB; would go to {target.repo} ({seen} where it is new)"
        console.print(f"[bold]{place}[/]: {told}")
        console.print(f"  card {place / CARD}, tag {target.tag}, commit message {target.message!r}")

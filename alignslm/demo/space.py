"""The page as a folder to upload as a Hugging Face Space: models, this package and its requirements."""

import re
import shutil
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

import alignslm
from alignslm.artifacts import Artifacts
from alignslm.demo.page import EXAMPLES, TITLE, DemoError, chosen_models, load_gradio, write_examples
from alignslm.generation.resolve import checkpoint_folder, speech_folders
from alignslm.generation.studio import SpeechPipeline
from alignslm.storage import copy_file, reraise_disk_errors, write_text

# For training, evaluation and reports: a Space installs faster without them.
LEFT_OUT = frozenset({
    "accelerate", "datasets", "dvc", "espeakng-loader", "matplotlib", "onnxruntime", "peft", "speechmos", "trl",
})  # fmt: skip
APP = '''\
"""The page of a Space; written by `alignslm demo --export-space`."""

from pathlib import Path

from alignslm.demo.page import space_page

space_page(Path(__file__).parent, {models!r})
'''
README = Path(__file__).parent / "space.md"


def export_space(root: Path, models: Sequence[str] | None, folder: Path) -> None:
    """Write app.py, requirements.txt, README.md, prompts to try, the models and this package into a new folder.

    Checkpoints of the experiment and of folders are copied; the Space downloads those of the Hub. Nothing is written if
    anything is wrong. Raises PlayError if a model is not found, DemoError if `folder` is not empty or two models would
    have the same name.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoError(f"{folder} is not empty; choose a new folder for the Space")
    names, speech, version = chosen_models(models, root), speech_folders(root), load_gradio().__version__
    inside, own = _inside(names, root)
    with reraise_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _copy(Path(alignslm.__file__).parent, folder / "alignslm")
        _copy(root / "experiments", folder / "experiments")
        copy_file(root / "params.yaml", folder / "params.yaml")
        for name, source in speech.items():
            _copy(source, folder / "artifacts" / name)
        for name, source in own.items():
            _copy(source, Artifacts(folder / "artifacts").checkpoint(name))
        (folder / EXAMPLES).mkdir()
        write_examples(SpeechPipeline.open(root), folder / EXAMPLES)
        write_text(folder / "app.py", APP.format(models=inside))
        write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in requirements()))
        readme = README.read_text(encoding="utf-8").format(title=TITLE, gradio=version, models=", ".join(names))
        write_text(folder / "README.md", readme)


def requirements() -> list[str]:
    """Return the packages that generation needs, with this package's bounds; gradio is the Space's `sdk_version`."""
    lines = [line for line in requires("alignslm") or [] if "extra ==" not in line]
    return sorted(line for line in lines if re.split(r"[^\w.-]", line)[0].lower() not in LEFT_OUT)


def _inside(models: Sequence[str], root: Path) -> tuple[list[str], dict[str, Path]]:
    """Return the models' names in the Space, and the folders of those that are copied there."""
    names: list[str] = []
    folders: dict[str, Path] = {}
    for model in models:
        own = Artifacts(root / "artifacts").checkpoint(model)
        if not own.is_dir() and not Path(model).expanduser().is_dir():
            names.append(model)
            continue
        source = checkpoint_folder(model, root)
        if source.name in folders:
            raise DemoError(
                f"{folders[source.name]} and {source} would both be {source.name!r} in the Space; rename one"
            )
        folders[source.name] = source
        names.append(source.name)
    return names, folders


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, following links. Copies are writable; files that DVC links are not."""
    shutil.copytree(
        source, target, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    )

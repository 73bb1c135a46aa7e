"""Copy the one file of code/ that a config names: what is built from it then depends on nothing else of code/."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm.config.loading import load_experiment
from alignslm.config.own_code import OwnCode
from alignslm.own_code import FOLDER, OwnCodeError
from alignslm.progress import stage
from alignslm.storage import copy_file, write_text
from stages import layout


def main(choice: Annotated[str, typer.Argument(help="a file in experiments/ without .yaml, as judge/ngram")]) -> None:
    """Run the stage for one config; of a built-in kind a note is left in place of a file."""
    with stage(f"own_code@{choice}") as log:
        file = Path("experiments", f"{choice}.yaml")
        config = next(one.config for one in load_experiment().choices() if one.file == file)
        folder = layout.own_code(choice)
        if isinstance(config, OwnCode):
            source = FOLDER / f"{config.module}.py"
            if not source.is_file():
                raise OwnCodeError(f"{file}: object names {config.object}, but {source} does not exist")
            copy_file(source, folder / source.name)
        else:
            write_text(folder / "built-in.txt", "No file of code/ is used.\n")
        log.rows(inputs={"configs": 1}, outputs={"own files": int(isinstance(config, OwnCode))})


if __name__ == "__main__":
    typer.run(main)

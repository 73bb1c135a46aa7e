"""Copy the file of code/ that a config names, so that its dependents do not depend on other files of code/."""

from pathlib import Path

from alignslm.config.own_code import OwnCode
from alignslm.own_code import FOLDER, OwnCodeError
from alignslm.storage import copy_file, write_text
from stages.names import requested_name
from stages.run import start


def main(choice: str) -> None:
    """Run the stage for one config, such as judge/ngram; for a built-in kind, a note is written instead."""
    with start(__file__, choice) as run:
        file = Path("experiments", f"{choice}.yaml")
        config = next(one.config for one in run.experiment.choices() if one.file == file)
        folder = run.artifacts.own_code(choice)
        if isinstance(config, OwnCode):
            source = FOLDER / f"{config.module}.py"
            if not source.is_file():
                raise OwnCodeError(f"{file}: object names {config.object}, but {source} does not exist")
            copy_file(source, folder / source.name)
        else:
            write_text(folder / "built-in.txt", "No file of code/ is used.\n")
        run.log.rows(inputs={"configs": 1}, outputs={"own files": int(isinstance(config, OwnCode))})


if __name__ == "__main__":
    main(requested_name())

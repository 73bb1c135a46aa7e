"""What pyproject.toml cannot say: the wheel also holds the files that an experiment begins with."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TEMPLATE = Path(__file__).parent / "alignslm" / "template" / "__init__.py"


class BuildWithTemplate(build_py):
    """Copies the template's files beside the modules, but not for an editable installation, which has the checkout."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "alignslm", "template", "files")
            for name, file in runpy.run_path(str(TEMPLATE))["template_files"]().items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)


setup(cmdclass={"build_py": BuildWithTemplate})

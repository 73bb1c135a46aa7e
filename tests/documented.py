"""The commands that README.md and docs/ show, as a reader would type them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    """One command of a page, comments and prompt taken away; `words` as a shell splits them."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def commands() -> list[Command]:
    """Return every command shown, in order; in `console` blocks only lines after `$ ` are typed."""
    found = []
    for page in PAGES:
        for kind, body in BLOCK.findall(page.read_text()):
            lines = body.replace("\\\n", " ").splitlines()
            typed = [line.removeprefix("$ ") for line in lines if kind == "sh" or line.startswith("$ ")]
            for line in typed:
                words = shlex.join(shlex.split(line, comments=True))
                found += [Command(page.name, part.strip()) for part in re.split(r"\s'?&&'?\s", words) if part.strip()]
    return found

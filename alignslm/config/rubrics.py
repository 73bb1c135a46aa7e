"""Rubric templates: the question put to a judge that reads words, one text file each in experiments/rubric/."""

import re
from dataclasses import dataclass
from pathlib import Path

from alignslm.config.problems import suggestion

PLACEHOLDERS = ("prompt", "continuation")
_PLACEHOLDER = re.compile(r"\{(prompt|continuation)\}")


class RubricError(ValueError):
    """A rubric file is missing, or does not contain each placeholder exactly once."""


@dataclass(frozen=True)
class Rubric:
    """A template with `{prompt}` and `{continuation}` once each, in either order; any other brace is text."""

    text: str

    @classmethod
    def parse(cls, text: str, *, where: str) -> "Rubric":
        """Check a template. Raises RubricError with the count of each placeholder."""
        counts = {name: text.count(f"{{{name}}}") for name in PLACEHOLDERS}
        if set(counts.values()) != {1}:
            shown = " and ".join(f"{{{name}}} {count} times" for name, count in counts.items())
            raise RubricError(
                f"{where} has {shown}; a rubric has each exactly once: {{prompt}} where the transcript of the "
                "prompt goes, {continuation} where that of its continuation goes"
            )
        return cls(text)

    @classmethod
    def read(cls, name: str, root: Path = Path()) -> "Rubric":
        """Read root/experiments/rubric/NAME.txt. Raises RubricError."""
        path = rubric_path(name, root)
        if not path.is_file():
            known = sorted(file.stem for file in path.parent.glob("*.txt"))
            raise RubricError(f"no file {path.as_posix()}" + suggestion(name, known, label="rubrics"))
        return cls.parse(path.read_text(encoding="utf-8"), where=path.as_posix())

    def fill(self, prompt: str, continuation: str) -> str:
        """Insert both transcripts in one pass: placeholders in a transcript are not replaced."""
        texts = {"prompt": prompt, "continuation": continuation}
        return _PLACEHOLDER.sub(lambda found: texts[found[1]], self.text)


def rubric_path(name: str, root: Path = Path()) -> Path:
    """Return the file of a rubric."""
    return root / "experiments" / "rubric" / f"{name}.txt"

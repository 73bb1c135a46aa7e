"""The one way to a terminal for text that came from data: it moves no cursor, sets no title and hides nothing."""

from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

# Controls but tab and newline, and marks that let text be read in another order than it is shown.
_UNPRINTABLE = dict.fromkeys(
    [*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


def printable(text: str) -> str:
    """Return text without control characters: the rest of an escape sequence, and odd bytes, are seen as text."""
    return text.encode("utf-8", "backslashreplace").decode().translate(_UNPRINTABLE)


class Console(console.Console):
    """rich's console; whatever is printed, only rich's own styles reach the terminal as control characters."""

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        """Yield the segments of a renderable, their text printable."""
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

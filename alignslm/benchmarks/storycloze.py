"""Spoken and topic StoryCloze: files named by story and side, or numbered; never a guess between the two."""

import re
from pathlib import Path

from alignslm.benchmarks.index import Found, frame, place, recordings
from alignslm.benchmarks.numbered import numbered
from alignslm.config.benchmarks import SpokenStoryCloze
from alignslm.failures import Problem

NAMED = re.compile(r"(?P<story>.+)_(?P<side>correct|incorrect|mutual)")
POLARITIES = {"correct": "positive", "incorrect": "negative"}


def find(config: SpokenStoryCloze) -> Found:
    """List the recordings of a release, whichever of its two layouts it has."""
    root = place(config.data)
    files = recordings(root)
    named = {file: match for file in files if (match := NAMED.fullmatch(file.stem))}
    if named:
        return _named(named, files, root)
    folders = {file.parent for file in files}
    several = [
        Problem("wav files in several folders", str(path.relative_to(root))) for path in folders if len(folders) > 1
    ]
    rows, problems = numbered(files, root, separator="_")
    return Found(frame(rows), root, problems + several)


def _named(named: dict[Path, re.Match[str]], files: list[Path], root: Path) -> Found:
    """Pair by the story's name. With a `mutual` beginning, the other two files are the endings alone."""
    stories: dict[str, dict[str, str]] = {}
    wrong = [
        Problem("name is not STORY_correct, STORY_incorrect or STORY_mutual", file.relative_to(root).as_posix())
        for file in files
        if file not in named
    ]
    for file, match in named.items():
        story = (file.parent.relative_to(root) / match["story"]).as_posix()
        stories.setdefault(story, {})[match["side"]] = file.relative_to(root).as_posix()
    with_context = {story for story, sides in stories.items() if "mutual" in sides}
    if with_context and with_context != set(stories):
        bare = sorted(set(stories) - with_context)
        wrong += [Problem("no mutual file, though other stories have one", story) for story in bare]
    rows = [
        {
            "item_id": f"{story}_{side}",
            "pair_id": story,
            "polarity": POLARITIES[side],
            "subtype": "",
            "voice": "",
            "file": file,
            "context_file": sides.get("mutual"),
        }
        for story, sides in stories.items()
        for side, file in sides.items()
        if side in POLARITIES
    ]
    alone = sorted(story for story, sides in stories.items() if not POLARITIES.keys() & sides.keys())
    return Found(frame(rows), root, wrong + [Problem("mutual file without endings", story) for story in alone])

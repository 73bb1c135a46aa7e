"""Which utterances train and which are kept for validation and test: whole speakers, else whole recordings."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from alignslm.config.corpora import SplitName
from alignslm.provenance import content_id

HELD_OUT: dict[SplitName, float] = {"test": 0.15, "valid": 0.1}
LEAST_TRAINING = 0.6


class Split(NamedTuple):
    """The split of every group, and the kind of groups."""

    of: dict[str, SplitName]
    by: Literal["speakers", "recordings", "pieces"]


def split_groups(speakers: Mapping[str, str], recordings: Mapping[str, str], seconds: Mapping[str, float]) -> Split:
    """Return the split of every utterance; the mappings go from its id to its speaker, recording and length.

    Speakers are separated if 60 % of the speech is left for training; else recordings, for one or a few voices;
    else, in one long recording or two, the last pieces are kept for test.
    """
    for by, group_of in (("speakers", speakers), ("recordings", recordings)):
        groups = sorted({*group_of.values()}, key=lambda name: content_id("ingest", name))
        lengths = {name: sum(seconds[key] for key in seconds if group_of[key] == name) for name in groups}
        if (split := _held_out(groups, lengths)) is not None:
            return Split(
                {key: split[group_of[key]] for key in seconds}, "speakers" if by == "speakers" else "recordings"
            )
    split = _held_out(sorted(seconds, reverse=True), seconds)
    return Split(split or dict.fromkeys(seconds, "train"), "pieces")


def _held_out(groups: Sequence[str], seconds: Mapping[str, float]) -> dict[str, SplitName] | None:
    """Fill test, then valid, with groups in their order; None if a split stays empty or too little is left."""
    total, left = sum(seconds.values()), list(groups)
    split: dict[str, SplitName] = {}
    for name, share in HELD_OUT.items():
        held = 0.0
        while left and held < share * total:
            group = left.pop(0)
            split[group], held = name, held + seconds[group]
    enough = sum(seconds[group] for group in left) >= LEAST_TRAINING * total
    return {**split, **dict.fromkeys(left, "train")} if left and enough else None

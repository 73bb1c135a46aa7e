"""Corpora of recorded speech: found, checked, and streamed into the utterances table.

A layout lists its utterances and their texts (`Found`); everything after that is the same for all.
Another layout is a config class, a module with `find`, and an arm of `_find`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm.config.corpora import LibriSpeechPart, ListedPart, MlsPart, ParquetPart, PartConfig, Recordings
from alignslm.corpora import parquet
from alignslm.corpora.alignments import with_word_ends
from alignslm.corpora.index import Excluded, check_speaker_overlap, exclude, limit_utterances, refuse, unique_ids
from alignslm.corpora.layouts import find_librispeech, find_listed, find_mls
from alignslm.corpora.reading import read_all
from alignslm.listing import Listing


class Corpus(NamedTuple):
    """A corpus found but not read: one row an utterance (`corpora.index.INDEX`), in order of utterance_id."""

    rows: pl.DataFrame
    roots: dict[str, Path]
    left: Excluded


def find_corpus(config: Recordings) -> Corpus:
    """List every utterance of a corpus without reading audio, and count the excluded ones.

    Raises CorpusError with every problem of every part: absent subsets, missing or doubled transcripts, repeated ids,
    speakers that cross splits.
    """
    found = {name: _find(part, name) for name, part in config.parts.items()}
    problems = [problem for item in found.values() for problem in item.problems]
    index = pl.concat([item.rows for item in found.values()])
    index, problems, unwanted = exclude(index, problems, config.exclude_ids)
    index, over = limit_utterances(index, {name: part.max_utterances for name, part in config.parts.items()})
    over += sum(item.over_limit for item in found.values())
    problems += unique_ids(index)
    index, crossing, crossed = check_speaker_overlap(index, config.overlapping_speakers)
    for name, part in config.parts.items():
        index, broken = with_word_ends(index, name, part.alignments)
        problems += broken
    refuse(problems + crossed, total=len(index))
    roots = {name: item.root for name, item in found.items()}
    return Corpus(index.sort("utterance_id"), roots, Excluded(by_request=unwanted, over_limit=over, crossing=crossing))


def _find(part: PartConfig, name: str) -> Listing:
    """Return the utterances of one part, at most in the order its files give."""
    match part:
        case LibriSpeechPart():
            return find_librispeech(part, name)
        case MlsPart():
            return find_mls(part, name)
        case ListedPart():
            return find_listed(part, name)
        case ParquetPart():
            return parquet.find(part, name)


def utterances_of(
    corpus: Corpus, config: Recordings, *, workers: int, shard_size: int, work: Path
) -> Iterator[pl.DataFrame]:
    """Yield the utterances table in shards, in order of utterance_id; a shard is durable in `work` once it was read.

    Audio is decoded to be checked, and stored as the bytes it came in. Raises CorpusError at the end, with every
    file or row that is unreadable, empty, not finite, too long, of several channels or of another sample rate.
    """
    yield from read_all(corpus.rows, corpus.roots, config, workers=workers, shard_size=shard_size, work=work)

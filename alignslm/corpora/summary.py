"""Summary of a corpus: utterances, speakers and seconds per split, exclusions, and a hash of everything."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from alignslm.config.model import Config
from alignslm.corpora.index import CorpusError, Excluded


class SplitCounts(Config):
    """One split. `transcribed` utterances have a text, `aligned` ones word times as well."""

    utterances: int
    speakers: int
    seconds: float
    transcribed: int
    aligned: int


class CorpusSummary(Config):
    """The whole corpus. `content_sha256` is over every utterance's id, split and encoded audio, in order."""

    splits: dict[str, SplitCounts]
    left_out_by_request: int
    left_out_over_limit: int
    left_out_crossing_speakers: int
    content_sha256: str


@dataclass
class CorpusCounter:
    """Counts shards on their way into the table."""

    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    counted: list[pl.DataFrame] = field(default_factory=list)

    def watch(self, frames: Iterable[pl.DataFrame], expected: str | None) -> Iterator[pl.DataFrame]:
        """Yield the frames of an utterances table unchanged, and count them.

        Raises CorpusError after the last, before a table is published, if the corpus is not the one expected.
        """
        for frame in frames:
            for name, split, cell in frame.select("utterance_id", "split", "audio").iter_rows():
                sound = hashlib.sha256(cell["bytes"]).hexdigest()
                self.digest.update(f"{name}\0{split}\0{sound}\0".encode())
            self.counted.append(
                frame.select(
                    "split",
                    "speaker_id",
                    seconds=pl.col("num_samples") / pl.col("sample_rate_hz"),
                    transcribed=pl.col("text").is_not_null(),
                    aligned=pl.col("word_ends_s").is_not_null(),
                )
            )
            yield frame
        if expected not in {None, self.digest.hexdigest()}:
            raise CorpusError(
                f"the corpus has content_sha256 {self.digest.hexdigest()}, the experiment pins {expected}: files were "
                "added, removed or changed since. Put the former files back, or correct content_sha256 in "
                "experiments/corpus/."
            )

    def close(self, left: Excluded) -> CorpusSummary:
        """Return the summary."""
        splits = (
            pl.concat(self.counted)
            .group_by("split")
            .agg(
                pl.len().alias("utterances"),
                pl.col("speaker_id").n_unique().alias("speakers"),
                pl.col("seconds").sum().round(3),
                pl.col("transcribed", "aligned").sum(),
            )
            .sort("split")
        )
        return CorpusSummary(
            splits={row.pop("split"): SplitCounts.model_validate(row) for row in splits.to_dicts()},
            left_out_by_request=left.by_request,
            left_out_over_limit=left.over_limit,
            left_out_crossing_speakers=left.crossing,
            content_sha256=self.digest.hexdigest(),
        )

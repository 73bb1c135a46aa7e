"""Clean texts for judges that are fitted: the transcripts of training speech."""

import polars as pl

from alignslm import tables
from alignslm.config.corpora import Recordings
from alignslm.corpora.index import lowest_hashes


def texts_of(index: pl.DataFrame, config: Recordings) -> pl.DataFrame:
    """Return the texts table: training transcripts cut after their first words, at most `config.num_texts` of them.

    Transcripts of no more than `num_prompt_words` words have no continuation and are passed over; a corpus without
    transcripts gives an empty table, which judges that are not fitted never read.
    """
    words = pl.col("text").str.split(" ")
    long = index.filter((pl.col("split") == "train") & (words.list.len() > config.num_prompt_words))
    chosen = long.filter(pl.col("utterance_id").is_in(lowest_hashes(long["utterance_id"], config.num_texts)))
    frame = chosen.select(
        text_id=pl.col("utterance_id"),
        prompt_text=words.list.head(config.num_prompt_words).list.join(" "),
        continuation_text=words.list.slice(config.num_prompt_words).list.join(" "),
    )
    return tables.conform(frame, tables.TEXTS)

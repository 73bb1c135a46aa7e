"""Make the corpus: spoken utterances, a summary of them, and clean texts to fit judges on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import polars as pl

from alignslm import tables
from alignslm.config.corpora import Recordings
from alignslm.config.prerequisites import require_ready
from alignslm.config.speech import StoryWorldConfig
from alignslm.corpora import find_corpus, utterances_of
from alignslm.corpora.index import NOTHING_EXCLUDED, Excluded, fingerprint
from alignslm.corpora.summary import CorpusCounter
from alignslm.corpora.texts import texts_of
from alignslm.storage import write_text
from alignslm.storyworld.corpus import story_texts, synthesize_corpus
from stages.run import Run, start


class _Made(NamedTuple):
    utterances: Iterator[pl.DataFrame]
    texts: pl.DataFrame
    left: Excluded


@contextmanager
def _make(run: Run) -> Iterator[_Made]:
    workers, rows = run.execution.num_workers, run.execution.shard_size
    match run.experiment.corpus:
        case StoryWorldConfig() as config:
            with run.work() as work:
                spoken = synthesize_corpus(config, workers=workers, shard_size=rows, work=work)
                yield _Made(spoken, story_texts(config), NOTHING_EXCLUDED)
        case Recordings() as config:
            corpus = find_corpus(config)
            with run.work(files=fingerprint(corpus.rows, corpus.roots)) as work:
                read = utterances_of(corpus, config, workers=workers, shard_size=rows, work=work)
                yield _Made(read, texts_of(corpus.rows, config), corpus.left)


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        require_ready(run.experiment)  # the first stage of all: an absent key or folder should not be met hours later
        artifacts, config, counter = run.artifacts, run.experiment.corpus, CorpusCounter()
        pinned = config.content_sha256 if isinstance(config, Recordings) else None
        with _make(run) as made:
            rows = tables.write_shards(counter.watch(made.utterances, pinned), tables.UTTERANCES, artifacts.utterances)
            summary = counter.close(made.left).model_dump_json(indent=1)
            write_text(artifacts.corpus_summary, summary + "\n")
            tables.write(made.texts, tables.TEXTS, artifacts.texts)
        run.log.rows(inputs={}, outputs={"utterances": rows, "texts": len(made.texts)})


if __name__ == "__main__":
    main()

"""Make the corpus: spoken utterances, an account of them, and clean texts that judges may be fitted on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import polars as pl

from alignslm import tables
from alignslm.config.corpora import Recordings
from alignslm.config.execution import Execution
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.readiness import require_ready
from alignslm.config.speech import CorpusConfig, StoryWorld
from alignslm.corpora import find_corpus, utterances_of
from alignslm.corpora.account import Books
from alignslm.corpora.index import NOTHING_LEFT, Left, fingerprint
from alignslm.corpora.texts import texts_of
from alignslm.progress import stage
from alignslm.shards import work_folder
from alignslm.storage import write_text
from alignslm.storyworld.corpus import speak_corpus, story_texts
from stages import layout


class _Made(NamedTuple):
    utterances: Iterator[pl.DataFrame]
    texts: pl.DataFrame
    left: Left


@contextmanager
def _make(config: CorpusConfig, execution: Execution) -> Iterator[_Made]:
    workers, rows = execution.workers, execution.shard_rows
    match config:
        case StoryWorld():
            with work_folder("corpus", script=__file__, params={"config": config}, inputs=[]) as work:
                spoken = speak_corpus(config, workers=workers, shard_rows=rows, work=work)
                yield _Made(spoken, story_texts(config), NOTHING_LEFT)
        case Recordings():
            corpus = find_corpus(config)
            params = {"config": config, "files": fingerprint(corpus.rows, corpus.roots)}
            with work_folder("corpus", script=__file__, params=params, inputs=[]) as work:
                read = utterances_of(corpus, config, workers=workers, shard_rows=rows, work=work)
                yield _Made(read, texts_of(corpus.rows, config), corpus.left)


def main() -> None:
    """Run the stage."""
    with stage("corpus") as log:
        experiment, execution, books = load_experiment(), load_execution(), Books()
        require_ready(experiment)  # the first stage of all: an absent key or folder should not be met hours later
        config = experiment.corpus
        pinned = config.content_sha256 if isinstance(config, Recordings) else None
        with _make(config, execution) as made:
            rows = tables.write_shards(books.watch(made.utterances, pinned), tables.UTTERANCES, layout.UTTERANCES)
            account = books.close(made.left).model_dump_json(indent=1)
            write_text(layout.CORPUS_ACCOUNT, account + "\n")
            tables.write(made.texts, tables.TEXTS, layout.TEXTS)
        log.rows(inputs={}, outputs={"utterances": rows, "texts": len(made.texts)})


if __name__ == "__main__":
    main()

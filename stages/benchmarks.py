"""Make one benchmark: speak its items or find those of a release, and encode them."""

from collections.abc import Iterable

import polars as pl

from alignslm import tables
from alignslm.benchmarks.corpus_cloze import corpus_cloze_items
from alignslm.benchmarks.index import fingerprint
from alignslm.benchmarks.items import encode_items
from alignslm.benchmarks.official import encode_found, find_items
from alignslm.config.evaluation import CorpusClozeConfig, ToyLexical, ToyStoryCloze, ToySyntactic
from alignslm.config.speech import StoryWorldConfig
from alignslm.encoder import Encoder, load_encoder
from alignslm.storyworld.items import ToyBenchmark, toy_items
from stages.names import requested_name
from stages.run import Run, start


def _spoken(run: Run, config: ToyBenchmark, encoder: Encoder) -> pl.DataFrame:
    corpus = run.experiment.corpus
    assert isinstance(corpus, StoryWorldConfig)  # noqa: S101 - the configuration was checked for it
    blocks = toy_items(config, corpus=corpus, workers=run.execution.num_workers)
    items = [encode_items(block, encoder, sample_rate_hz=corpus.sample_rate_hz) for block in blocks]
    return tables.conform(pl.concat(items), tables.ITEMS)


def _make(run: Run, encoder: Encoder) -> int:
    config, rows = run.experiment.benchmarks[run.name], run.execution.shard_size

    def write(shards: Iterable[pl.DataFrame]) -> int:
        return tables.write_shards(shards, tables.ITEMS, run.artifacts.benchmark(run.name), encoder.contract)

    if isinstance(config, ToyLexical | ToySyntactic | ToyStoryCloze):
        return write([_spoken(run, config, encoder)])
    if isinstance(config, CorpusClozeConfig):
        return write(corpus_cloze_items(config, run.artifacts.utterances, encoder))
    found = find_items(config)
    with run.work(files=fingerprint(found)) as work:
        return write(encode_found(found, encoder, shard_size=rows, work=work))


def main(name: str) -> None:
    """Run the stage for one benchmark."""
    with start(__file__, name) as run:
        encoder = load_encoder(run.experiment.encoder, run.artifacts.encoder, device=run.execution.device)
        run.log.rows(inputs={}, outputs={"items": _make(run, encoder)})


if __name__ == "__main__":
    main(requested_name())

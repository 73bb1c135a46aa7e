"""Make one benchmark: speak its items or find those of a release, and encode them."""

from collections.abc import Iterable
from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.benchmarks.endings import own_endings
from alignslm.benchmarks.index import fingerprint
from alignslm.benchmarks.items import encode_items
from alignslm.benchmarks.official import encode_found, find_items
from alignslm.config.evaluation import OwnEndings, ToyLexical, ToyStoryCloze, ToySyntactic
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.speech import CorpusConfig, StoryWorld
from alignslm.encoder import Encoder, load_encoder
from alignslm.progress import stage
from alignslm.provenance import UnitContract
from alignslm.shards import work_folder
from alignslm.storyworld.items import ToyBenchmark, toy_items
from stages import layout


def _spoken(config: ToyBenchmark, corpus: CorpusConfig, encoder: Encoder, execution: Execution) -> pl.DataFrame:
    assert isinstance(corpus, StoryWorld)  # noqa: S101 - the configuration was checked for it
    blocks = toy_items(config, corpus=corpus, workers=execution.workers)
    items = [encode_items(block, encoder, sample_rate_hz=corpus.sample_rate_hz) for block in blocks]
    return tables.arrange(pl.concat(items), tables.ITEMS)


def _write(name: str, shards: Iterable[pl.DataFrame], contract: UnitContract) -> int:
    return tables.write_shards(shards, tables.ITEMS, layout.benchmark(name), contract)


def _make(name: str, experiment: Experiment, encoder: Encoder, execution: Execution) -> int:
    config, rows = experiment.benchmarks[name], execution.shard_rows
    if isinstance(config, ToyLexical | ToySyntactic | ToyStoryCloze):
        return _write(name, [_spoken(config, experiment.corpus, encoder, execution)], encoder.contract)
    if isinstance(config, OwnEndings):
        return _write(name, own_endings(config, layout.UTTERANCES, encoder), encoder.contract)
    found = find_items(config)
    params = {"config": config, "files": fingerprint(found)}
    with work_folder(f"benchmark-{name}", script=__file__, params=params, inputs=[layout.ENCODER]) as work:
        return _write(name, encode_found(found, encoder, shard_rows=rows, work=work), encoder.contract)


def main(name: Annotated[str, typer.Argument(help="a key of params.yaml's benchmarks")]) -> None:
    """Run the stage for one benchmark."""
    with stage(f"benchmarks@{name}") as log:
        experiment, execution = load_experiment(), load_execution()
        encoder = load_encoder(experiment.encoder, layout.ENCODER, device=execution.device)
        log.rows(inputs={}, outputs={"items": _make(name, experiment, encoder, execution)})


if __name__ == "__main__":
    typer.run(main)

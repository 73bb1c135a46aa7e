"""Speak every continuation of a round."""

from typing import Annotated

import typer

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import WithModel, agreed, once
from alignslm.progress import stage
from alignslm.shards import map_shards, work_folder
from alignslm.vocoder import load_vocoder
from alignslm.vocoder.rows import speak
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"speech@{name}") as log:
        config, execution = load_experiment().vocoder, load_execution()
        source = layout.table("continuations", name)
        contract = tables.contract_of(tables.CONTINUATIONS, source)
        continuations = tables.read(tables.CONTINUATIONS, source)
        loaded = once(load_vocoder, config, layout.VOCODER, device=execution.device)
        vocoder = agreed(loaded, contract, mine=layout.VOCODER, theirs=source)
        inputs = [source, layout.VOCODER]
        with work_folder(f"speech-{name}", script=__file__, params={"config": config}, inputs=inputs) as work:
            shards = map_shards(
                continuations,
                WithModel(vocoder, speak),
                folder=work,
                shard_rows=execution.shard_rows,
                label=f"speech@{name}",
                pool=pool_of(execution),
            )
            spoken = tables.write_shards(shards, tables.SPEECH, layout.speech(name), contract)
        log.rows(inputs={"continuations": len(continuations)}, outputs={"spoken": spoken})


if __name__ == "__main__":
    typer.run(main)

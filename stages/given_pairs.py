"""Turn preferences that others made into pairs that training reads: speech is encoded, units are checked."""

from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.encoder import load_encoder
from alignslm.preferences.files import fetch, find_slices
from alignslm.preferences.pairing import make_pairs, refuse, require_units
from alignslm.preferences.reading import read_slice
from alignslm.progress import stage
from alignslm.shards import map_tasks, work_folder
from alignslm.storage import write_text
from stages import layout


def main(name: Annotated[str, typer.Argument(help="a key of params.yaml's given")]) -> None:
    """Run the stage for one set of preferences."""
    with stage(f"given_pairs@{name}") as log:
        experiment, execution = load_experiment(), load_execution()
        config = experiment.given[name]
        encoder = load_encoder(experiment.encoder, layout.ENCODER, device=execution.device)
        require_units(config, encoder.contract)
        root, identity = fetch(config)
        slices, problems = find_slices(config, root, rows=execution.shard_rows)
        refuse(problems, rows=sum(place.rows for place in slices))
        params = {"config": config, "source": identity}
        with work_folder(f"given-pairs-{name}", script=__file__, params=params, inputs=[layout.ENCODER]) as work:
            read = map_tasks(
                slices,
                lambda place: read_slice(config, place, num_units=encoder.contract.num_units, encoder=encoder),
                folder=work / f"shards-of-{execution.shard_rows}",
                label=f"given_pairs@{name}",
            )
            pairs, account = make_pairs(pl.concat(read), config, source=identity)
            tables.write(pairs, tables.PAIRS, layout.table("pairs", name), encoder.contract)
            write_text(layout.account(name), account.model_dump_json(indent=1) + "\n")
        log.figures({"left_out": account.rows - len(pairs)})
        log.rows(inputs={"rows": account.rows}, outputs={"pairs": len(pairs)})


if __name__ == "__main__":
    typer.run(main)

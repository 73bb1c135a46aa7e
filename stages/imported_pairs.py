"""Turn imported preferences into pairs for training: speech is encoded, units are checked."""

import polars as pl

from alignslm import tables
from alignslm.encoder import load_encoder
from alignslm.preferences.files import fetch, find_slices
from alignslm.preferences.pairing import make_pairs, refuse, require_units
from alignslm.preferences.reading import read_slice
from alignslm.storage import write_text
from stages.names import requested_name
from stages.run import start


def main(name: str) -> None:
    """Run the stage for one set of imported preferences."""
    with start(__file__, name) as run:
        config, rows = run.experiment.imported_preferences[name], run.execution.shard_size
        encoder = load_encoder(run.experiment.encoder, run.artifacts.encoder, device=run.execution.device)
        require_units(config, encoder.contract)
        root, identity = fetch(config)
        slices, problems = find_slices(config, root, rows=rows)
        refuse(problems, rows=sum(place.rows for place in slices))
        with run.work(source=identity) as work:
            read = run.map_tasks(
                slices,
                lambda place: read_slice(config, place, num_units=encoder.contract.num_units, encoder=encoder),
                work / f"shards-of-{rows}",
                here=True,
            )
            pairs, counts = make_pairs(pl.concat(read), config, source=identity)
            tables.write(pairs, tables.PAIRS, run.artifacts.table("pairs", name), encoder.contract)
            write_text(run.artifacts.pair_counts(name), counts.model_dump_json(indent=1) + "\n")
        run.log.log_metrics({"left_out": counts.rows - len(pairs)})
        run.log.rows(inputs={"rows": counts.rows}, outputs={"pairs": len(pairs)})


if __name__ == "__main__":
    main(requested_name())

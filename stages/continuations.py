"""Sample N continuations of every training and validation prompt from one checkpoint."""

import polars as pl

from alignslm import tables
from alignslm.engine.work import ModelTask
from alignslm.lm.checkpoint import load_lm
from stages.names import requested_name
from stages.run import start
from stages.sampling import drawing


def main(name: str) -> None:
    """Sample for one set of preferences."""
    with start(__file__, name) as run, run.work() as work:
        params, source = run.params, run.artifacts.prompts
        contract = tables.contract_of(tables.PROMPTS, source)
        prompts = tables.read(tables.PROMPTS, source).filter(pl.col("split").is_in(["train", "valid"]))
        checkpoint = run.artifacts.checkpoint(params.preferences[name].sampled_from)
        lm = run.unit_model(load_lm, checkpoint, units_of=(tables.PROMPTS, source))
        draw = drawing(run, seed=params.seeds.sampling, purpose=name)
        drawn = pl.concat(run.map_rows(prompts, ModelTask(lm, draw), run.sampling_folder(work)))
        tables.write(drawn, tables.CONTINUATIONS, run.artifacts.table("continuations", name), contract)
        run.log.rows(inputs={"prompts": len(prompts)}, outputs={"continuations": len(drawn)})


if __name__ == "__main__":
    main(requested_name())

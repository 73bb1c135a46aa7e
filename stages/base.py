"""Train the base unit language model on the training speech."""

import polars as pl

from alignslm import tables
from alignslm.config.loading import load_experiment
from alignslm.lm.checkpoint import save_lm
from alignslm.progress import stage
from alignslm.shards import discard, work_folder
from alignslm.training.next_unit import scratch_vocabulary, train_base
from alignslm.training.run import write_log
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("base") as log:
        experiment = load_experiment()
        config, seed = experiment.lm, experiment.params.seeds.base
        contract = tables.contract_of(tables.ENCODED, layout.UNITS)
        encoded = tables.read(tables.ENCODED, layout.UNITS).filter(pl.col("split") == "train")
        work = work_folder("base", params={"config": config, "seed": seed}, inputs=[layout.UNITS])
        vocabulary = scratch_vocabulary(contract.num_units)
        model, run = train_base(config, encoded["units"].to_list(), vocabulary, seed=seed, work=work)
        save_lm(model, vocabulary, contract, layout.checkpoint("base"))
        write_log(run, None, layout.training("base"))
        discard(work)
        log.rows(inputs={"utterances": len(encoded)}, outputs={"steps": run.steps})


if __name__ == "__main__":
    main()

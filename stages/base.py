"""Make the base unit language model: train it on the training speech, or import a published one."""

import polars as pl

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.loading import load_execution, load_experiment
from alignslm.progress import stage
from alignslm.shards import work_folder
from alignslm.training.base_model import make_base
from alignslm.training.processes import is_first, start_processes, together
from alignslm.training.run import write_log
from stages import layout


def main() -> None:
    """Run the stage."""
    if start_processes("stages.base", [], processes=load_execution().training_processes):
        return
    with stage("base") as log:
        experiment = load_experiment()
        warn_emulated(experiment, load_execution(), "lm")
        config, seed = experiment.lm, experiment.params.seeds.base
        contract = tables.contract_of(tables.ENCODED, layout.UNITS)
        encoded = tables.read(tables.ENCODED, layout.UNITS).filter(pl.col("split") == "train")
        folder, params = layout.checkpoint("base"), {"config": config, "seed": seed}
        with work_folder("base", script=__file__, params=params, inputs=[layout.UNITS]) as work:
            together()  # the first process has the folder for itself
            run = make_base(config, encoded["units"].to_list(), contract, seed=seed, work=work, folder=folder)
            if is_first():
                write_log(run, None, layout.training("base"))
        log.rows(inputs={"utterances": len(encoded)}, outputs={"steps": run.steps})


if __name__ == "__main__":
    main()

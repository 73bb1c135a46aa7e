"""Train the continued next-unit baseline from the base model on the same speech."""

import polars as pl

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.loading import load_execution, load_experiment
from alignslm.lm.checkpoint import load_lm, save_lm
from alignslm.progress import stage
from alignslm.shards import work_folder
from alignslm.training.adapter import on_whole_base, save_adapter_and_merge
from alignslm.training.next_unit import continue_training
from alignslm.training.processes import is_first, start_processes, together
from alignslm.training.run import write_log
from stages import layout


def main() -> None:
    """Run the stage."""
    if start_processes("stages.ntp", [], processes=load_execution().training_processes):
        return
    with stage("ntp") as log:
        experiment, execution = load_experiment(), load_execution()
        warn_emulated(experiment, execution, "ntp")
        config, seed = experiment.ntp, experiment.params.seeds.training
        encoded = tables.read(tables.ENCODED, layout.UNITS).filter(pl.col("split") == "train")
        parent = layout.checkpoint("base")
        lm = load_lm(parent, device=execution.device, processes=execution.processes_sharing)
        lm.contract.require(
            tables.contract_of(tables.ENCODED, layout.UNITS), mine=str(parent), theirs=str(layout.UNITS)
        )
        folder, params = layout.checkpoint("ntp"), {"config": config, "seed": seed}
        with work_folder("ntp", script=__file__, params=params, inputs=[layout.UNITS, parent]) as work:
            together()  # the first process has the folder for itself
            model, run = continue_training(config, lm, encoded["units"].to_list(), seed=seed, work=work)
            if is_first():
                merged = save_adapter_and_merge(on_whole_base(model, parent), folder / "adapter")
                save_lm(merged, lm.vocabulary, lm.contract, folder)
                write_log(run, None, layout.training("ntp"))
        log.rows(inputs={"utterances": len(encoded)}, outputs={"steps": run.steps})


if __name__ == "__main__":
    main()

"""Make the base unit language model: train it on the training speech, or import a published one."""

import polars as pl

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.loading import load_execution
from alignslm.lm.positions import named_rows
from alignslm.training.base_model import make_base
from alignslm.training.processes import is_main_process, start_processes, wait_for_everyone
from alignslm.training.trainer_setup import write_log
from stages.run import start


def main() -> None:
    """Run the stage."""
    if start_processes("stages.base", [], processes=load_execution().num_processes):
        return
    with start(__file__) as run, run.work() as work:
        warn_emulated(run.experiment, run.execution, "lm")
        source, folder = run.artifacts.units, run.artifacts.checkpoint("base")
        contract = tables.contract_of(tables.ENCODED, source)
        encoded = tables.read(tables.ENCODED, source).filter(pl.col("split") == "train")
        wait_for_everyone()  # the first process has the folder for itself
        with named_rows(encoded["utterance_id"]):
            made = make_base(
                run.experiment.lm,
                encoded["units"].to_list(),
                contract,
                seed=run.params.seeds.base,
                work=work,
                folder=folder,
                device=run.execution.device,
            )
        if is_main_process():
            write_log(made, None, run.artifacts.training("base"))
        run.log.rows(inputs={"utterances": len(encoded)}, outputs={"steps": made.steps})


if __name__ == "__main__":
    main()

"""Train a checkpoint on preference pairs and merge its adapter: a round, the sft baseline, or on given pairs."""

from typing import Annotated

import typer

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.loading import load_execution, load_experiment
from alignslm.lm.checkpoint import load_lm, save_lm
from alignslm.progress import stage
from alignslm.shards import work_folder
from alignslm.training.adapter import on_whole_base, save_adapter_and_merge
from alignslm.training.preference import train_preferences
from alignslm.training.processes import is_first, start_processes, together
from alignslm.training.run import write_log
from stages import layout


def main(
    name: Annotated[str, typer.Argument(help="checkpoint to make: a round, sft, or a key of given")],
    pairs_of: Annotated[str, typer.Argument(help="round, or key of given, whose pairs it is trained on")],
) -> None:
    """Run the stage for one checkpoint."""
    if start_processes("stages.checkpoint", [name, pairs_of], processes=load_execution().training_processes):
        return
    with stage(f"checkpoint@{name}") as log:
        experiment, execution = load_experiment(), load_execution()
        params = experiment.params
        key = "sft" if name == "sft" else "trainer"
        warn_emulated(experiment, execution, key)
        config = getattr(experiment, key)
        given = experiment.given.get(pairs_of)
        source, parent = layout.table("pairs", pairs_of), layout.checkpoint(params.parent_of(pairs_of))
        pairs = tables.read(tables.PAIRS, source)
        contract = tables.contract_of(tables.PAIRS, source)
        lm = load_lm(parent, device=execution.device, processes=execution.processes_sharing)
        lm.contract.require(contract, mine=str(parent), theirs=str(source))
        seed, warmup = params.seeds.training, (given or params.rounds[pairs_of]).warmup_steps
        with work_folder(
            f"checkpoint-{name}",
            script=__file__,
            params={"config": config, "seed": seed, "warmup": warmup},
            inputs=[source, parent],
        ) as work:
            together()  # the first process has the folder for itself
            model, run, best = train_preferences(
                config, lm, pairs, warmup_steps=warmup, seed=seed, batch_rows=execution.batch_rows, work=work
            )
            if is_first():
                folder = layout.checkpoint(name)
                merged = save_adapter_and_merge(on_whole_base(model, parent), folder / "adapter")
                save_lm(merged, lm.vocabulary, contract, folder)
                write_log(run, best, layout.training(name))
        log.figures({"best_step": best.step, "accuracy": best.reward_accuracy, "margin": best.reward_margin})
        log.rows(inputs={"pairs": len(pairs)}, outputs={"steps": run.steps})


if __name__ == "__main__":
    typer.run(main)

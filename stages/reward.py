"""Train a reward model of units on judged pairs, reward what they were made of, and say how well it agrees."""

import json
from dataclasses import replace

import polars as pl

from alignslm import tables
from alignslm.config.models import RewardTrainerConfig
from alignslm.lm.checkpoint import save_lm
from alignslm.lm.positions import named_rows
from alignslm.lm.reward import agreement, unit_rewards, with_reward_head
from alignslm.storage import write_text
from alignslm.training.adapter import save_adapter_and_merge
from alignslm.training.reward import train_reward
from alignslm.training.trainer_setup import write_log
from stages.names import requested_name
from stages.run import Run, start


def _continuations(run: Run) -> pl.DataFrame:
    """Return the judged continuations with their prompts: what is rewarded."""
    artifacts, name = run.artifacts, run.params.reward_models[run.name].preferences
    prompts = tables.read(tables.PROMPTS, artifacts.prompts).select("prompt_id", "split", prompt_units="units")
    scores = tables.read(tables.SCORES, artifacts.table("scores", name), ["continuation_id", "judge_score"])
    drawn = tables.read(tables.CONTINUATIONS, artifacts.table("continuations", name))
    found = drawn.join(prompts, on="prompt_id", validate="m:1", maintain_order="left")
    return found.join(scores, on="continuation_id", how="left", validate="1:1", maintain_order="left")


def main(name: str) -> None:
    """Run the stage for one reward model."""
    with start(__file__, name) as run, run.work() as work:
        noun, artifacts, trainer = run.params.reward_models[name], run.artifacts, run.experiment.reward_models[name]
        assert isinstance(trainer, RewardTrainerConfig)  # noqa: S101 - the configuration was checked for it
        source = artifacts.table("pairs", noun.preferences)
        pairs, contract = tables.read(tables.PAIRS, source), tables.contract_of(tables.PAIRS, source)
        parent = artifacts.checkpoint(noun.init_from)
        lm = with_reward_head(parent, device=run.execution.device)
        lm.contract.require(contract, mine=str(parent), theirs=str(source))
        with named_rows(pairs["pair_id"]):
            model, made, best = train_reward(
                trainer, lm, pairs, seed=run.params.seeds.training, batch_size=run.execution.batch_size, work=work
            )
        folder = artifacts.reward_model(name)
        merged = save_adapter_and_merge(model, folder / "adapter")
        save_lm(merged, lm.vocabulary, contract, folder)
        drawn = _continuations(run)
        rewards = unit_rewards(replace(lm, model=merged), drawn, batch_size=run.execution.batch_size)
        rewarded = drawn.with_columns(reward=pl.Series(rewards))
        table = tables.UNIT_REWARDS
        tables.write(tables.conform(rewarded, table), table, artifacts.named(f"rewards/{name}"))
        valid = (frame.filter(pl.col("split") == "valid") for frame in (rewarded, pairs))
        found = {measure: estimate._asdict() for measure, estimate in agreement(*valid).items()}
        write_text(artifacts.agreement(name), json.dumps(found, indent=1, allow_nan=False) + "\n")
        write_log(made, best, artifacts.training(name))
        run.log.log_metrics({measure: estimate["value"] for measure, estimate in found.items()})
        run.log.rows(inputs={"pairs": len(pairs)}, outputs={"rewarded continuations": len(rewarded)})


if __name__ == "__main__":
    main(requested_name())

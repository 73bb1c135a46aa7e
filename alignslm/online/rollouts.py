"""Rollouts: a group of continuations of each prompt, drawn from the model in training and rewarded.

A judge's rewards are of continuations that were spoken and heard, a reward model's of their units.

Each is durable before anything is learnt from it, and all of them are tables of the checkpoint that they trained.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.asr import ASRModel
from alignslm.asr.rows import transcribe
from alignslm.config.feedback import AutoBleu, Sampling
from alignslm.config.models import OnlineTrainerConfig
from alignslm.engine.work import LazyModel
from alignslm.judge import Judge
from alignslm.judge.rows import CachedJudge, join_judge_inputs, score
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.reward import unit_rewards
from alignslm.lm.rows import sample_continuations
from alignslm.prompts import with_prompt_units
from alignslm.provenance import UnitContract, row_seed
from alignslm.shards import map_tasks
from alignslm.storage import atomic_write
from alignslm.vocoder import Vocoder
from alignslm.vocoder.rows import synthesize_rows

EMPTY_REWARD = 1.0  # of a continuation in which nothing was heard: the lowest score there is
ROLLOUT, ADVANTAGES = "part-00000.parquet", "advantages.parquet"


class TooFewPromptsError(ValueError):
    """There are fewer prompts than one rollout needs."""


@dataclass(frozen=True)
class Listeners:
    """The models that turn continuations into scores, each loaded once and used in turns."""

    vocoder: LazyModel[Vocoder]
    asr: LazyModel[ASRModel]
    judge: LazyModel[Judge]
    judge_name: str
    max_unscored: float
    auto_bleu: AutoBleu
    shard_size: int  # continuations whose sound is in memory
    penalty: float  # for every other continuation with the same transcript

    def __call__(self, drawn: pl.DataFrame, asked: pl.DataFrame, *, folder: Path, label: str) -> pl.DataFrame:
        """Return `drawn` with what was heard and judged: `transcript` and `score` (structs), and the reward."""
        heard = self.hear(drawn)
        scored = self.score(join_judge_inputs(drawn, heard, asked), folder=folder, label=label)
        parts = [
            heard.select(pl.col("source_id").alias("continuation_id"), transcript=pl.struct(pl.all())),
            scored.select("continuation_id", score=pl.struct(pl.all())),
            rewards(scored, heard, penalty=self.penalty),
        ]
        for part in parts:
            drawn = drawn.join(part, on="continuation_id", validate="1:1", maintain_order="left")
        return drawn

    def hear(self, drawn: pl.DataFrame) -> pl.DataFrame:
        """Return the transcripts of continuations; their sound is not kept."""
        shards = drawn.iter_slices(self.shard_size)
        return pl.concat(transcribe(synthesize_rows(shard, self.vocoder()), self.asr()) for shard in shards)

    def score(self, stories: pl.DataFrame, *, folder: Path, label: str) -> pl.DataFrame:
        """Return the judge's scores and replies, kept in `folder` shard by shard. Raises UnscoredError."""
        judge = CachedJudge(
            self.judge,
            max_unscored=self.max_unscored,
            folder=folder,
            shard_size=self.shard_size,
            label=label,
            pool=None,
        )
        return score(stories, judge, auto_bleu=self.auto_bleu)


@dataclass(frozen=True)
class UnitRewards:
    """Rewards continuations by their units alone; repetition is that of all units of a continuation."""

    model: LazyModel[UnitLM]
    batch_size: int
    penalty: float  # for every other continuation with the same units

    def __call__(self, drawn: pl.DataFrame, asked: pl.DataFrame, *, folder: Path, label: str) -> pl.DataFrame:
        """Return `drawn` with the reward and its parts."""
        del folder, label
        told = with_prompt_units(drawn, asked)
        found = unit_rewards(self.model(), told, batch_size=self.batch_size)
        same = (pl.len().over("units") - 1).cast(pl.Int32)
        return drawn.with_columns(num_same_text=same, reward=pl.Series(found) - self.penalty * same)


def rewards(scores: pl.DataFrame, transcripts: pl.DataFrame, *, penalty: float) -> pl.DataFrame:
    """Return (continuation_id, num_same_text, reward): the judge's score less `penalty` times `num_same_text`.

    `num_same_text` counts the other rows with the same transcript. A continuation on which the judge failed has no
    reward.
    """
    said = transcripts.select(pl.col("source_id").alias("continuation_id"), pl.col("text").fill_null(""))
    judged = pl.when(pl.col("status") == "empty").then(pl.lit(EMPTY_REWARD)).otherwise("judge_score")
    same = (pl.len().over("text") - 1).cast(pl.Int32)
    joined = scores.join(said, on="continuation_id", validate="1:1", maintain_order="left")
    return joined.select("continuation_id", num_same_text=same, reward=judged - penalty * same)


class RolloutStore:
    """Takes rollouts and keeps them in `folder` until they become tables: what is there already is not drawn again."""

    def __init__(
        self,
        config: OnlineTrainerConfig,
        prompts: pl.DataFrame,
        reward: Listeners | UnitRewards,
        *,
        name: str,
        seed: int,
        folder: Path,
        batch_size: int,
        batch_invariant: bool = False,
    ) -> None:
        """Take `prompts` (prompt_id, units, prompt_text); `name` and `seed` enter the seed of every draw."""
        self.config, self.prompts, self.reward = config, prompts, reward
        self.name, self.seed, self.folder = name, seed, folder
        self.batch_size, self.batch_invariant = batch_size, batch_invariant

    def take(self, number: int, prompt_ids: Sequence[str], lm: UnitLM) -> None:
        """Make rollout `number`, drawn from `lm`, unless it is there."""
        asked = self.prompts.filter(pl.col("prompt_id").is_in(prompt_ids))
        made = functools.partial(self._make, number=number, lm=lm)
        for _ in map_tasks([asked], made, folder=self._place(number), label=f"rollout {number + 1}"):
            pass

    def rollout(self, number: int) -> pl.DataFrame:
        """Return rollout `number` as it was made: its continuations, by prompt_id and number of the draw."""
        return pl.read_parquet(self._place(number) / ROLLOUT).sort("prompt_id", "sample_index")

    def _make(self, asked: pl.DataFrame, *, number: int, lm: UnitLM) -> pl.DataFrame:
        drawn = self._draw(asked, number, lm)
        return self.reward(drawn, asked, folder=self._place(number) / "judged", label=f"rollout {number + 1}")

    def _draw(self, asked: pl.DataFrame, number: int, lm: UnitLM) -> pl.DataFrame:
        sampling = Sampling(
            num_continuations=self.config.num_continuations,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            max_new_units=self.config.max_new_units,
        )
        purpose = f"{self.name}/{number}"
        drawn = sample_continuations(
            asked,
            lm,
            sampling,
            seed=self.seed,
            purpose=purpose,
            batch_size=self.batch_size,
            batch_invariant=self.batch_invariant,
        )
        identity = pl.format(f"{number:06d}-{{}}-{{}}", "prompt_id", "sample_index")  # in the order of rollouts
        return drawn.with_columns(continuation_id=identity)

    def keep_advantages(self, number: int, advantages: Mapping[str, float]) -> None:
        """Keep what the trainer made of the rewards of rollout `number`, by continuation."""
        frame = pl.DataFrame({"continuation_id": list(advantages), "advantage": list(advantages.values())})
        with atomic_write(self._place(number) / ADVANTAGES) as partial:
            frame.write_parquet(partial)

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def finished(self) -> Iterator[pl.DataFrame]:
        """Yield every rollout, with its number and its advantages, in order."""
        for number in range(self.config.num_rollouts):
            rollout, advantages = (pl.read_parquet(self._place(number) / file) for file in (ROLLOUT, ADVANTAGES))
            joined = rollout.join(advantages, on="continuation_id", validate="1:1", maintain_order="left")
            yield joined.with_columns(rollout=pl.lit(number, pl.Int32))

    def write(self, folder: Path, contract: UnitContract) -> None:
        """Write the tables of all rollouts into `folder`: a file of its name each."""
        scored = pl.col("score").struct.unnest()
        written: list[tuple[tables.Table, list[pl.Expr]]] = [
            (tables.CONTINUATIONS, [pl.all()]),
            (tables.REWARDS, [pl.all()]),
        ]
        if isinstance(self.reward, Listeners):
            written += [
                (tables.TRANSCRIPTS, [pl.col("transcript").struct.unnest()]),
                (tables.SCORES, [scored]),
                (tables.REPLIES, [scored, pl.lit(self.reward.judge_name).alias("judge")]),
            ]
        for table, columns in written:
            frames = (rollout.select(columns) for rollout in self.finished())
            tables.write_frames(frames, table, folder / f"{table.name}.parquet", contract)


def prompts_of_rollouts(prompt_ids: Sequence[str], config: OnlineTrainerConfig, *, seed: int) -> list[list[str]]:
    """Return the prompts of every rollout, sorted: parts of seeded permutations of all, each prompt once a rollout.

    What is left of a permutation and fills no rollout is left out. Raises TooFewPromptsError.
    """
    size, found = config.prompts_per_rollout, list[list[str]]()
    if len(prompt_ids) < size:
        raise TooFewPromptsError(
            f"{len(prompt_ids)} training prompts have a text, but a rollout takes {size}. Lower prompts_per_rollout in "
            "the trainer's YAML, or raise prompts.train in params.yaml."
        )
    while len(found) < config.num_rollouts:
        purpose = f"prompts of rollout {len(found)}"
        order = sorted(prompt_ids, key=lambda prompt_id: row_seed(seed, purpose, prompt_id))
        found += [sorted(order[at : at + size]) for at in range(0, len(order) - size + 1, size)]
    return found[: config.num_rollouts]

"""Online training of a tiny model in a world of its own: speech that spells its units, and a judge that counts them.

    python -m tests.online_world FOLDER [ROLLOUT]

trains in FOLDER, and is killed by the judge when it is asked about ROLLOUT.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import polars as pl
from peft import PeftModel

from alignslm.asr import Transcript
from alignslm.config.models import Lora, OnlineTrainerConfig
from alignslm.engine.work import LazyModel
from alignslm.judge import JudgeInput, JudgeOutput
from alignslm.online.grpo import train_online
from alignslm.online.rollouts import Listeners, RolloutStore
from alignslm.training.adapter import save_adapter_and_merge
from alignslm.training.processes import is_main_process, wait_for_everyone
from alignslm.training.trainer_setup import TrainingRun, write_log
from tests.tiny_lm import CONTRACT, tiny_lm

SEED = 3
CONFIG = OnlineTrainerConfig(
    kind="online",
    num_rollouts=5,
    prompts_per_rollout=3,
    num_continuations=4,
    temperature=0.9,
    top_p=1.0,
    max_new_units=6,
    repeated_text_penalty=0.3,
    loss_type="dapo",
    scale_rewards="batch",
    beta=0.5,
    epsilon=0.2,
    num_iterations=1,
    lora=Lora(r=4, alpha=8, target_modules="all-linear"),
    learning_rate=0.03,
    lr_scheduler_type="linear",
    warmup_steps=0,
    micro_batch_size=None,
    weight_decay=0.0,
    max_grad_norm=1.0,
    autocast="float32",
)
PROMPTS = pl.DataFrame({
    "prompt_id": [f"p{number}" for number in range(7)],
    "units": pl.Series([[n, n + 2, 5 + n][: 2 + n % 2] for n in range(7)], dtype=pl.List(pl.UInt16)),
    "prompt_text": [f"prompt {number}" for number in range(7)],
})  # fmt: skip


class Spelling:
    """A vocoder whose samples are the units, and an ASR model that reads them back: unit 3 is `c`."""

    sample_rate_hz = 16000
    contract = CONTRACT

    def synthesize(self, units: list[list[int]]) -> list[np.ndarray]:
        return [np.array(row, np.float32) / 64 for row in units]

    def transcribe(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        texts = [" ".join(chr(97 + int(unit)) for unit in np.rint(wave * 64)) for wave in waveforms]
        return [Transcript(text or None, "ok" if text else "empty", None, text, None, None) for text in texts]


class Counting:
    """Gives 5 for a text of early letters alone, 1 for none; fails on texts of one letter. `kill` ends the process."""

    def __init__(self, kill: int | None = None) -> None:
        self.kill, self.asked = kill, 0

    def judge(self, stories: list[JudgeInput]) -> list[JudgeOutput]:
        if self.asked == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        self.asked += 1
        return [self._one(story.continuation.split()) for story in stories]

    def _one(self, letters: list[str]) -> JudgeOutput:
        if len(letters) == 1:
            return JudgeOutput(None, None, "failed", "what?")
        return JudgeOutput(1 + 4 * sum(letter < "g" for letter in letters) / len(letters), None, "ok", str(letters))


def store_in(folder: Path, config: OnlineTrainerConfig = CONFIG, judge: Counting | None = None) -> RolloutStore:
    listeners = Listeners(
        vocoder=LazyModel(Spelling),
        asr=LazyModel(Spelling),
        judge=LazyModel(lambda: judge or Counting()),
        judge_name="counting",
        max_unscored=1.0,
        auto_bleu="gslm",
        shard_size=5,
        penalty=config.repeated_text_penalty,
    )
    return RolloutStore(config, PROMPTS, listeners, name="online", seed=SEED, folder=folder / "rollouts", batch_size=8)


def train(
    folder: Path, config: OnlineTrainerConfig = CONFIG, judge: Counting | None = None, device: str = "cpu"
) -> tuple[PeftModel, TrainingRun, RolloutStore]:
    store, lm = store_in(folder, config, judge), tiny_lm()
    lm.model.to(device)
    return *train_online(config, lm, store, seed=SEED, work=folder), store


def main(folder: Path, kill: int | None) -> None:
    """Train and write what is published; as one of several processes under torch's launcher, too."""
    wait_for_everyone()
    model, run, store = train(folder / "work", judge=Counting(kill))
    if not is_main_process():
        return
    store.write(folder / "made" / "rollouts", CONTRACT)
    write_log(run, None, folder / "made" / "online.json")
    save_adapter_and_merge(model, folder / "made" / "adapter")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)

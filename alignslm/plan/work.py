"""Number of steps of each kind, stage by stage, by which a probe's times are multiplied."""

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from alignslm.config.corpora import Recordings
from alignslm.config.experiment import Experiment
from alignslm.config.llm_judges import CausalLMJudgeConfig, GeneratedRating, OpenAIJudgeConfig
from alignslm.config.models import (
    LlamaScratchConfig,
    NextUnitTrainerConfig,
    OnlineTrainerConfig,
    PreferenceTrainerConfig,
    RewardTrainerConfig,
)
from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.config.speech import CharCTCASRConfig, ConvGriffinLimConfig, StoryWorldConfig
from alignslm.config.whisper import WhisperASRConfig
from alignslm.pipeline import Stage
from alignslm.plan.workload import RUNS_PER_UNIT, STORY_WORDS, corpus_hours, drawn_by_guard, drawn_online

Amounts: TypeAlias = Mapping[str, float]  # how often each step is computed, by the step's name
READ_UTTERANCE_S = 12.3  # mean of LibriSpeech
PROMPT_SHARE = 0.4  # of an utterance that is cut after its first sentence
PAIRS_PER_PROMPT = 1.5  # that a selector finds, about
REPLY_TOKENS = 100  # of a judge that argues in two or three sentences


class Lengths(NamedTuple):
    """Expected seconds of an utterance, a prompt and a continuation; units of a continuation and of an utterance."""

    utterance_s: float
    prompt_s: float
    spoken_s: float
    units: int
    utterance_units: int


def lengths_of(experiment: Experiment) -> Lengths:
    """Return the expected length of a continuation: the rest of an utterance, at most `max_new_units`."""
    params, rate_hz = experiment.params, experiment.encoder.frame_rate_hz
    corpus, runs = experiment.corpus, RUNS_PER_UNIT
    whole = READ_UTTERANCE_S
    if isinstance(corpus, StoryWorldConfig):
        whole, runs = 60 * STORY_WORDS / corpus.words_per_minute, 1.1
    prompt = min(params.prompts.max_duration_s, PROMPT_SHARE * whole)
    spoken = min(whole - prompt, params.sampling.max_new_units * runs / rate_hz)
    return Lengths(whole, prompt, spoken, round(spoken * rate_hz / runs), round(whole * rate_hz / runs))


def amounts_of(experiment: Experiment, stages: list[Stage]) -> dict[str, Amounts]:
    """Return how often each stage computes each step; a stage that is missing here is not estimated."""
    params, sizes = experiment.params, lengths_of(experiment)
    prompts = params.prompts
    drawn = (prompts.train + prompts.valid) * params.sampling.num_continuations
    held = getattr(prompts, params.evaluation.split) * params.evaluation.num_continuations
    silent = sum((prompts.train, prompts.valid, prompts.dev, prompts.test)) if prompts.cut_at == "time" else 0
    shorter = 1.0 if isinstance(experiment.asr, WhisperASRConfig) else sizes.prompt_s / sizes.spoken_s  # Whisper: 30 s
    corpus_s = 3600 * (corpus_hours(experiment) or 0.0)
    found: dict[str, Amounts] = {
        "corpus": {} if isinstance(experiment.corpus, Recordings) else {"story": corpus_s / sizes.utterance_s},
        "units": {"encode": corpus_s},
        "base": _base(experiment),
        "vocoder": {"vocoder step": _steps(experiment.vocoder)},
        "asr": {"asr step": _steps(experiment.asr), "synthesize": _resynthesized(experiment) * sizes.utterance_s},
        "prompt_transcripts": {"transcribe": silent * shorter},
        "continuations": {"draw": drawn},
        "speech": {"synthesize": drawn * sizes.spoken_s},
        "transcripts": {"transcribe": drawn},
        "scores": {"judge": _judged(experiment.judge, drawn)},
        "samples": {"draw": held, "synthesize": held * sizes.spoken_s, "transcribe": held},
        "eval": {"judge": _judged(experiment.judge, held), "heldout_judge": _judged(experiment.heldout_judge, held)}
        | {"encode": held * sizes.spoken_s},
    }
    return {stage.name: named for stage in stages if (named := _of(stage, found, experiment)) and any(named.values())}


def _of(stage: Stage, found: Mapping[str, Amounts], experiment: Experiment) -> Amounts:
    kind, _, name = stage.name.partition("@")
    params = experiment.params
    if kind == "train":
        drawn = drawn_online(experiment, name)
        heard = {"synthesize": drawn * lengths_of(experiment).spoken_s, "transcribe": drawn}
        judged = heard | {"judge": _judged(experiment.judge, drawn)} if params.checkpoints[name].scores else {}
        trained = {f"train {params.checkpoints[name].trainer}": _rows(experiment, name)}
        return {"draw": drawn, **judged, **trained} if drawn else trained
    if kind == "reward":
        trainer = experiment.reward_models[name]
        assert isinstance(trainer, RewardTrainerConfig)  # noqa: S101 - the configuration was checked for it
        return {f"train {params.reward_models[name].trainer}": _epochs(experiment, trainer, PAIRS_PER_PROMPT)}
    if kind == "guard":  # as much as it takes to sample and to evaluate a system, with other counts
        drawn, held = drawn_by_guard(experiment, name), found["samples"]["draw"]
        return {step: count * drawn / held for step, count in {**found["samples"], **found["eval"]}.items()}
    if kind == "best_of":
        once = {**found["samples"], "judge": found["eval"]["judge"]}
        return {step: count * params.best_of[name].num_continuations for step, count in once.items()}
    if kind in {"samples", "eval"}:
        system = params.systems[name]
        drawn_before = name in params.toplines or system.judged_best is not None
        times = {"draw": 0 if drawn_before else system.best_of or 1}
        return {step: count * times[step] if step in times else count for step, count in found[kind].items()}
    return found.get(kind, {})


def _base(experiment: Experiment) -> Amounts:
    lm = experiment.lm
    return {"base step": lm.max_steps} if isinstance(lm, LlamaScratchConfig | TwistInitConfig) else {}


def _steps(config: object) -> int:
    return config.steps if isinstance(config, ConvGriffinLimConfig | CharCTCASRConfig) else 0


def _resynthesized(experiment: Experiment) -> float:
    return experiment.asr.fit_utterances * experiment.asr.resynthesized_fraction


def _judged(judge: object, stories: int) -> int:
    """Return the forward passes over stories: 0 for servers, which run elsewhere."""
    if isinstance(judge, OpenAIJudgeConfig):
        return 0
    votes = judge.score.num_votes if isinstance(judge, CausalLMJudgeConfig) and _writes(judge) else 1  # type: ignore[union-attr]
    return stories * votes


def _writes(judge: CausalLMJudgeConfig) -> bool:
    return isinstance(judge.score, GeneratedRating)


def _rows(experiment: Experiment, name: str) -> int:
    """Return the rows (pairs, continuations or utterances) that training reads, in all steps."""
    trainer = experiment.checkpoints[name]
    if isinstance(trainer, NextUnitTrainerConfig | OnlineTrainerConfig):
        return trainer.max_steps * trainer.batch_size
    unpaired = isinstance(trainer, PreferenceTrainerConfig) and trainer.unpaired
    return _epochs(experiment, trainer, experiment.params.sampling.num_continuations if unpaired else PAIRS_PER_PROMPT)


def _epochs(experiment: Experiment, trainer: PreferenceTrainerConfig | RewardTrainerConfig, each: float) -> int:
    """Return the rows of all steps of a training on `each` rows a prompt."""
    pairs = each * experiment.params.prompts.train
    steps = trainer.max_steps or math.ceil(trainer.num_train_epochs * pairs / trainer.batch_size)
    return steps * trainer.batch_size


def seconds_of(amounts: Amounts, steps: Mapping[str, float | None]) -> float | None:
    """Return the seconds of a stage, or None if one of its steps was not timed."""
    known = [(count, steps[step]) for step, count in amounts.items() if count]
    return None if any(each is None for _, each in known) else sum(count * (each or 0.0) for count, each in known)

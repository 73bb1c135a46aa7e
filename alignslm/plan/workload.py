"""How much an experiment computes: prompts, continuations, speech, transcripts and judge requests."""

from pathlib import Path
from typing import Literal, NamedTuple

from alignslm.config.experiment import Experiment
from alignslm.config.feedback import JudgeConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig, ExpectedRating, OpenAIJudgeConfig

WORDS_PER_S = 2.7  # of English read aloud, as LibriSpeech is
TOKENS_PER_WORD = 1.4  # of English, in the tokenizers of large judges
RUNS_PER_UNIT = 1.5  # frames per deduplicated unit, about


class JudgeRequests(NamedTuple):
    """Requests to one judge. Tokens are estimates, `written_tokens` an upper bound; both are 0 for fitted judges."""

    key: str
    choice: str
    stories: int
    requests: int
    read_tokens: int
    written_tokens: int


class Workload(NamedTuple):
    """Counts of rows. Continuations are of all rounds together; speech is in hours, at most."""

    prompts: int
    prompts_transcribed: int
    continuations: int
    evaluated: int
    speech_h: float
    asked: list[JudgeRequests]


def volume_of(experiment: Experiment, root: Path) -> Workload:
    """Count what the parameters imply. Reads only the rubrics."""
    params = experiment.params
    prompts, sampling = params.prompts, params.sampling
    drawn = (prompts.train + prompts.valid) * sampling.num_continuations * len(params.preferences)
    evaluated = getattr(prompts, params.evaluation.split) * params.evaluation.num_continuations * len(params.systems)
    total = prompts.train + prompts.valid + prompts.dev + prompts.test
    longest_s = sampling.max_new_units * RUNS_PER_UNIT / experiment.encoder.frame_rate_hz
    return Workload(
        prompts=total,
        prompts_transcribed=total if prompts.cut_at == "time" else 0,
        continuations=drawn,
        evaluated=evaluated,
        speech_h=(drawn + evaluated) * longest_s / 3600,
        asked=[
            _asked(experiment, "judge", drawn + evaluated, root),
            _asked(experiment, "heldout_judge", evaluated, root),
        ],
    )


def _asked(experiment: Experiment, key: Literal["judge", "heldout_judge"], stories: int, root: Path) -> JudgeRequests:
    params = experiment.params
    choice: str = getattr(params, key)
    judge: JudgeConfig = getattr(experiment, key)
    if not isinstance(judge, CausalLMJudgeConfig | OpenAIJudgeConfig):
        return JudgeRequests(key, choice, stories, 0, 0, 0)
    spoken_s = (
        params.prompts.max_duration_s + params.sampling.max_new_units * RUNS_PER_UNIT / experiment.encoder.frame_rate_hz
    )
    rubric = root / "experiments" / "rubric" / f"{judge.rubric}.txt"
    words = len(rubric.read_text(encoding="utf-8").split()) if rubric.is_file() else 0
    one = round((words + spoken_s * WORDS_PER_S) * TOKENS_PER_WORD)
    match judge:
        case OpenAIJudgeConfig():
            requests, written = stories * judge.decoding.num_votes, judge.decoding.max_tokens
        case CausalLMJudgeConfig(score=ExpectedRating()):
            requests, written = stories, 0
        case CausalLMJudgeConfig():
            requests, written = stories * judge.score.num_votes, judge.score.max_tokens  # type: ignore[union-attr]
    return JudgeRequests(key, choice, stories, requests, requests * one, requests * written)

"""AI feedback: how likely and relevant a continuation's text is, given the prompt's text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

from alignslm.config.feedback import JudgeConfig, NgramJudgeConfig, StoryLMJudgeConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig, OpenAIJudgeConfig
from alignslm.config.own_code import PythonJudgeConfig
from alignslm.integrity import reading
from alignslm.metrics import words
from alignslm.own_code import FOLDER

Status: TypeAlias = Literal["ok", "empty", "failed", "truncated", "too_long"]


class JudgeInput(NamedTuple):
    """Prompt text and continuation text, as written by the corpus and the ASR model."""

    prompt: str
    continuation: str


PROBE = JudgeInput("tom walks along the beach in the morning", "he finds a shell and takes it home")  # a first story


class JudgeOutput(NamedTuple):
    """Score on 1..5 and conditional perplexity per word (causal-lm: per token); None if this judge has none.

    `status` is ok, empty (nothing was said), failed (no usable reply), truncated (the reply reached its longest length,
    or ended inside a thought) or too_long (prompt and continuation do not fit the judge); `reply` is the raw reply of a
    judge that writes one, or why there is none.
    """

    score: float | None
    ppl: float | None
    status: Status
    reply: str | None


class Judge(Protocol):
    """Judges (prompt, continuation) texts, one judgement per story, in order, independent of the batch."""

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one judgement per story."""
        ...


def judge_spoken(
    stories: Sequence[JudgeInput], judge: Callable[[list[JudgeInput]], list[JudgeOutput]]
) -> list[JudgeOutput]:
    """Return what `judge` says of the stories with a word in their continuation, and `empty` for the others."""
    judged = iter(judge([story for story in stories if words(story.continuation or "")]))
    nothing = JudgeOutput(None, None, "empty", None)
    return [next(judged) if words(story.continuation or "") else nothing for story in stories]


def prepare_judge(
    config: JudgeConfig,
    texts: Sequence[JudgeInput],
    folder: Path,
    *,
    device: str,
    root: Path = Path(),
    code: Path = FOLDER,
) -> dict[str, float]:
    """Fit (or fetch) the judge into `folder`; return calibration figures for the log.

    `texts` are what judges are fitted on or tried on: figures say how well they tell true from shuffled ones. Rubrics
    are in root/experiments/rubric, the source of `kind: python` in the folder `code`.
    """
    match config:
        case NgramJudgeConfig():
            from alignslm.judge import ngram

            return ngram.fit(config, texts, folder)
        case StoryLMJudgeConfig():
            from alignslm.judge import story_lm

            return story_lm.fit(config, texts, folder)
        case CausalLMJudgeConfig():
            from alignslm.judge import causal_lm

            return causal_lm.prepare(config, texts, folder, device=device, root=root)
        case OpenAIJudgeConfig():
            from alignslm.judge import openai_api

            return openai_api.prepare(config, texts, folder, root=root)
        case PythonJudgeConfig():
            from alignslm.judge import own

            return own.prepare(config, texts, folder, code=code, device=device)


def is_api_judge(config: JudgeConfig) -> bool:
    """Return whether a judge is a server.

    Such a judge runs in one process, with its stored replies, budget and ledger, and sends `concurrency` requests at
    a time by itself.
    """
    return isinstance(config, OpenAIJudgeConfig)


def load_judge(config: JudgeConfig, folder: Path, *, device: str) -> Judge:
    """Load what `prepare_judge` left in `folder`, onto `device`: auto, cpu or cuda."""
    with reading(folder):
        match config:
            case NgramJudgeConfig():
                from alignslm.judge import ngram

                return ngram.load(folder)
            case StoryLMJudgeConfig():
                from alignslm.judge import story_lm

                return story_lm.load(folder)
            case CausalLMJudgeConfig():
                from alignslm.judge.causal_lm import CausalLMJudge

                return CausalLMJudge.load(config, folder, device=device)
            case OpenAIJudgeConfig():
                from alignslm.judge.openai_api import OpenAIJudge

                return OpenAIJudge.load(config, folder)
            case PythonJudgeConfig():
                from alignslm.judge import own

                return own.load(config, folder, device=device)

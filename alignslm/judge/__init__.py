"""AI feedback: how likely and relevant a continuation's text is, given the prompt's text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from alignslm.config.feedback import JudgeConfig, NgramJudgeConfig, StoryLMJudgeConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig, OpenAIJudgeConfig
from alignslm.config.own_code import PythonJudgeConfig
from alignslm.integrity import reading
from alignslm.own_code import FOLDER


class JudgeInput(NamedTuple):
    """Prompt text and continuation text, lower-case words without punctuation."""

    prompt: str
    continuation: str


class JudgeOutput(NamedTuple):
    """Score on 1..5 and conditional perplexity per word (causal-lm: per token); None if this judge has none.

    `status` is ok, empty (nothing was said), or failed (no usable reply); `reply` is the raw reply of a judge that
    writes one.
    """

    score: float | None
    ppl: float | None
    status: Literal["ok", "empty", "failed"]
    reply: str | None


class Judge(Protocol):
    """Judges (prompt, continuation) texts, one judgement per story, in order, independent of the batch."""

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one judgement per story."""
        ...


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

    `texts` are for judges that are fitted; rubrics are in root/experiments/rubric, the source of `kind: python` in
    the folder `code`.
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

            return causal_lm.prepare(config, folder, device=device, root=root)
        case OpenAIJudgeConfig():
            from alignslm.judge import openai_api

            return openai_api.prepare(config, folder, root=root)
        case PythonJudgeConfig():
            from alignslm.judge import own

            return own.prepare(config, texts, folder, code=code, device=device)


def is_api_judge(config: JudgeConfig) -> bool:
    """Return whether a judge is asked over the network.

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

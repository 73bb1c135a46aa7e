"""A judge behind an OpenAI-compatible server: many questions at once, none sent twice, every reply kept."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from alignslm.config.llm_judges import OpenAIJudgeConfig
from alignslm.config.rubrics import Rubric
from alignslm.judge import JudgeInput, JudgeOutput
from alignslm.judge.api_client import APIClient, JudgeAPIError, Malformed
from alignslm.judge.replies import Reply, aggregate_replies
from alignslm.judge.reply_store import Answer, ReplyStore
from alignslm.metrics import words
from alignslm.storage import write_text

RUBRIC_FILE = "rubric.txt"
SETTINGS_FILE = "settings.json"
EXECUTION = {"budget", "concurrency", "timeout_s", "max_attempts", "api_key_env"}  # how it is asked, never what is said
PROBE = JudgeInput("tom walks along the beach in the morning", "he finds a shell and takes it home")


class MissingKeyError(ValueError):
    """The environment variable with a judge's API key is not set."""


def prepare(config: OpenAIJudgeConfig, folder: Path, *, root: Path) -> dict[str, float]:
    """Write rubric and settings into `folder` and ask one question, so that a wrong setup shows before any work.

    Raises MissingKeyError, RubricError, JudgeAPIError, BudgetError.
    """
    key = key_of(config)
    rubric = Rubric.read(config.rubric, root)
    reply = OpenAIJudge(config, rubric, key).replies([rubric.fill(*PROBE)], votes=1)[0]
    if isinstance(reply, Malformed):
        raise JudgeAPIError(
            f"{config.base_url} answered {reply.body[:300]!r}, which is no chat completion; check base_url in the "
            "judge's file (OpenAI's ends with /v1)."
        )
    write_text(folder / RUBRIC_FILE, rubric.text)
    settings = config.model_dump(mode="json", exclude=EXECUTION)
    write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=1, sort_keys=True) + "\n")
    return {}


def key_of(config: OpenAIJudgeConfig) -> str | None:
    """Return the key from the environment. Raises MissingKeyError naming the variable."""
    if config.api_key_env is None:
        return None
    if key := os.environ.get(config.api_key_env, "").strip():
        return key
    raise MissingKeyError(
        f"the environment variable {config.api_key_env} is not set, and {config.base_url} wants a key for "
        f"{config.model!r}: export {config.api_key_env}=... and run the same command again"
    )


class OpenAIJudge:
    """Asks a server for `votes` ratings of every story that says something."""

    def __init__(self, config: OpenAIJudgeConfig, rubric: Rubric, key: str | None) -> None:
        self.config, self.rubric = config, rubric
        decoding = config.decoding.model_dump(exclude={"num_votes"})  # more votes leave those already given valid
        identity = [config.base_url, config.model, decoding, rubric.text]
        self.store = ReplyStore(json.dumps(identity), config.budget)
        self.asker = APIClient(config, self.store, key)

    @classmethod
    def load(cls, config: OpenAIJudgeConfig, folder: Path) -> "OpenAIJudge":
        """Use the rubric that `prepare` left. Raises MissingKeyError."""
        rubric = Rubric.parse((folder / RUBRIC_FILE).read_text(encoding="utf-8"), where=str(folder / RUBRIC_FILE))
        return cls(config, rubric, key_of(config))

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one judgement per story; nothing said is status `empty` and is not asked about.

        Raises JudgeAPIError or BudgetError, after the answers under way have been kept.
        """
        said = [row for row, story in enumerate(stories) if words(story.continuation or "")]
        questions = [self.rubric.fill(stories[row].prompt, stories[row].continuation) for row in said]
        votes = self.config.decoding.num_votes
        answered = self.replies(questions, votes=votes)
        found = {
            row: aggregate_replies(
                [_reply(answer) for answer in answered[votes * place : votes * (place + 1)]],
                answer_prefix=self.config.answer_prefix,
                ppl=None,
            )
            for place, row in enumerate(said)
        }
        return [found.get(row, JudgeOutput(None, None, "empty", None)) for row in range(len(stories))]

    def replies(self, questions: Sequence[str], *, votes: int) -> list[Answer | Malformed]:
        """Return the answers to votes 0, 1, ... on the first question, then on the next; equal ones are asked once."""
        wanted = [(question, vote) for question in questions for vote in range(votes)]
        kept = {asked: self.store.get(self.store.key(*asked)) for asked in wanted}
        answers: dict[tuple[str, int], Answer | Malformed] = {a: answer for a, answer in kept.items() if answer}
        missing = [asked for asked, answer in kept.items() if answer is None]
        if missing:
            before = (self.store.requests, self.store.tokens)
            try:
                answers |= self._ask_all(missing)
            finally:
                self._log_usage(asked=len(missing), before=before)
        return [answers[asked] for asked in wanted]

    def _ask_all(self, missing: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Answer | Malformed]:
        """Ask `concurrency` at a time; the first failure stops the rest, and replies in flight are still kept."""
        self.asker.stop.clear()
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            pending = {pool.submit(self.asker.ask, *asked): asked for asked in missing}
            try:
                wait(pending)
            except BaseException:  # Ctrl-C: the pool would otherwise ask everything before it lets go
                self.asker.stop.set()
                raise
        failures = [error for future in pending if (error := future.exception())]
        if failures:
            raise failures[0]
        return {asked: answer for future, asked in pending.items() if (answer := future.result()) is not None}

    def _log_usage(self, *, asked: int, before: tuple[int, int]) -> None:
        store, budget = self.store, self.config.budget
        requests, tokens = store.requests - before[0], store.tokens - before[1]
        print(
            f"{self.config.model}: {asked} answers wanted, {requests} requests, {tokens} tokens "
            f"(of the budget: {store.requests}/{budget.requests} requests, {store.tokens}/{budget.tokens} tokens); "
            f"ledger {store.ledger}",
            flush=True,
        )


def _reply(answer: Answer | Malformed) -> Reply:
    """A body that is not a chat completion has no rating, and is kept verbatim."""
    return Reply(answer.body, refused=True) if isinstance(answer, Malformed) else Reply(answer.text, answer.refused)

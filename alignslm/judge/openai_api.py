"""A judge behind an OpenAI-compatible server: many questions at once, none sent twice, every reply kept."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from alignslm.config.llm_judges import TRIAL, OpenAIJudgeConfig
from alignslm.config.rubrics import Rubric
from alignslm.judge import PROBE, JudgeInput, JudgeOutput, Status, judge_spoken
from alignslm.judge.api_client import APIClient, JudgeAPIError
from alignslm.judge.api_reply import Unanswered
from alignslm.judge.calibration import try_judge
from alignslm.judge.replies import Reply, aggregate_replies
from alignslm.judge.reply_store import Answer, ReplyStore
from alignslm.redaction import remember_secret
from alignslm.storage import write_text

RUBRIC_FILE = "rubric.txt"
SETTINGS_FILE = "settings.json"
# Fields that affect how requests are sent, not their content.
EXECUTION = {
    "budget",
    "concurrency",
    "timeout_s",
    "max_attempts",
    "api_key_env",
    "api_key_header",
    "max_unscored",
    *TRIAL,
}
PROBE_VOTES = 2  # a model that samples may miss the form of an answer once


class MissingKeyError(ValueError):
    """The environment's settings for a judge's server are missing or unusable: its key, another server's name."""


def prepare(config: OpenAIJudgeConfig, texts: Sequence[JudgeInput], folder: Path, *, root: Path) -> dict[str, float]:
    """Write rubric and settings into `folder` and ask one question, so that a wrong setup shows before any work.

    Returns how well the judge separates true from shuffled `texts`, of which it is asked about a few.
    Raises MissingKeyError, RubricError, JudgeAPIError, BudgetError.
    """
    key = key_of(config)
    rubric = Rubric.read(config.rubric, root)
    judge = OpenAIJudge(config, rubric, key)
    judge.probe()
    figures = try_judge(judge, texts, count=config.auc_texts, min_auc=config.min_auc)
    write_text(folder / RUBRIC_FILE, rubric.text)
    settings = config.model_dump(mode="json", exclude=EXECUTION, exclude_defaults=True)
    write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=1, sort_keys=True) + "\n")
    return figures


def key_of(config: OpenAIJudgeConfig) -> str | None:
    """Return the key from the environment. Raises MissingKeyError if the environment does not fit the config."""
    for _, problem in config.problems():
        raise MissingKeyError(problem)
    key = config.api_key()
    if key:
        remember_secret(key)
    return key


class OpenAIJudge:
    """Asks a server for `votes` ratings of every story that says something."""

    def __init__(self, config: OpenAIJudgeConfig, rubric: Rubric, key: str | None) -> None:
        self.config, self.rubric = config, rubric
        decoding = config.decoding.model_dump(exclude={"num_votes"})  # more votes leave those already given valid
        more = {"extra_body", "extra_query", "seed_field"}
        added = config.model_dump(mode="json", include=more, exclude_defaults=True)
        identity = [config.base_url, config.model, decoding, rubric.text, *([added] if added else [])]
        self.store = ReplyStore(json.dumps(identity), config.budget)
        self.asker = APIClient(config, self.store, key)

    @classmethod
    def load(cls, config: OpenAIJudgeConfig, folder: Path) -> "OpenAIJudge":
        """Use the rubric that `prepare` left. Raises MissingKeyError."""
        rubric = Rubric.parse((folder / RUBRIC_FILE).read_text(encoding="utf-8"), where=str(folder / RUBRIC_FILE))
        return cls(config, rubric, key_of(config))

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one output per story; an empty transcript is status `empty` and not sent.

        Raises JudgeAPIError or BudgetError, after the answers under way have been kept.
        """
        return judge_spoken(stories, self._judged)

    def _judged(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        votes = self.config.decoding.num_votes
        answers = self.replies([self.rubric.fill(*story) for story in stories], votes=range(votes))
        return [self._output(answers[at : at + votes]) for at in range(0, len(answers), votes)]

    def _output(self, answers: Sequence[Answer | Unanswered]) -> JudgeOutput:
        """Return the judgement that the votes on one story give."""
        return aggregate_replies(list(map(_reply, answers)), answer_prefix=self.config.answer_prefix, ppl=None)

    def probe(self) -> None:
        """Ask one question, once more if its answer has no rating.

        Raises JudgeAPIError if that has none either: the same would happen, and be paid, for every story.
        """
        question = self.rubric.fill(*PROBE)
        for vote in range(1 if self.config.decoding.temperature == 0 else PROBE_VOTES):
            (answer,) = self.replies([question], votes=[vote], probe=True)
            output = self._output([answer])
            if output.status == "ok":
                return
            if isinstance(answer, Unanswered):
                break
        shown = (output.reply or "")[:300]
        raise JudgeAPIError(
            f"{self.config.base_url} answered {self.config.model!r} on a first story with {shown!r}: "
            f"{self._why_unrated(output.status)}. No further request was sent ({self.store.tokens} tokens so far)."
        )

    def _why_unrated(self, status: Status) -> str:
        if status == "truncated":
            return (
                f"the model reached decoding.max_tokens ({self.config.decoding.max_tokens}) before its answer ended. "
                "Raise it in the judge's file, or make the model reason less (extra_body)"
            )
        return (
            f"no rating follows answer_prefix {self.config.answer_prefix!r}. Check rubric and answer_prefix, and that "
            "base_url is that of a chat completions server (OpenAI's ends with /v1), in the judge's file"
        )

    def replies(
        self, questions: Sequence[str], *, votes: Sequence[int], probe: bool = False
    ) -> list[Answer | Unanswered]:
        """Return the answers to the `votes` on the first question, then on the next; equal ones are asked once."""
        wanted = [(question, vote) for question in questions for vote in votes]
        kept = {asked: self.store.get(self.store.key(*asked)) for asked in wanted}
        answers: dict[tuple[str, int], Answer | Unanswered] = {a: answer for a, answer in kept.items() if answer}
        missing = [asked for asked, answer in kept.items() if answer is None]
        if missing:
            before = (self.store.requests, self.store.tokens)
            try:
                answers |= self._ask_all(missing, probe=probe)
            finally:
                self._log_usage(asked=len(missing), before=before)
        return [answers[asked] for asked in wanted]

    def _ask_all(
        self, missing: Sequence[tuple[str, int]], *, probe: bool
    ) -> dict[tuple[str, int], Answer | Unanswered]:
        """Ask `concurrency` at a time; the first failure stops the rest, and replies in flight are still kept."""
        self.asker.stop.clear()
        with self.asker.connected(), ThreadPoolExecutor(self.config.concurrency) as pool:
            pending = {pool.submit(self.asker.ask, *asked, probe=probe): asked for asked in missing}
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


def _reply(answer: Answer | Unanswered) -> Reply:
    """Only an answer that is none of the server's refusals can rate; everything is kept verbatim."""
    return Reply(answer.text, answer.status if isinstance(answer, Unanswered) else "failed" if answer.refused else "ok")

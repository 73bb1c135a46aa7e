"""Requests to a server and its replies, kept on disk so that no reply is paid for twice.

Stored in ~/.cache/alignslm (or the folder that ALIGNSLM_CACHE names) and not an artifact: it survives `dvc repro`,
failing stages and `make clean`.
"""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from alignslm.config.llm_judges import Budget
from alignslm.config.model import Config, Count
from alignslm.fetching import cache_folder
from alignslm.storage import reraise_disk_errors, write_text


class BudgetError(ValueError):
    """The budget of a judge is spent."""


CUT = {"length", "max_tokens", "model_length"}  # finish reasons of an answer that its model did not end


class Answer(Config):
    """A reply with what it cost. Tokens are 0 if the server reports none."""

    text: str
    refused: bool
    finish: str | None
    model: str | None
    prompt_tokens: Count
    completion_tokens: Count

    @property
    def complete(self) -> bool:
        """Whether the server was well and the model came to an end; earlier versions stored other replies too."""
        return self.refused or (bool(self.text.strip()) and self.finish not in CUT | {"error"})


class LedgerEntry(Config):
    """One request: the question's key, how it ended (answer, unanswered, failed, refused, interrupted), its tokens."""

    key: str
    outcome: str
    prompt_tokens: Count
    completion_tokens: Count


def store_folder(identity: str) -> Path:
    """Return the folder of the replies to one identity (server, model, decoding, rubric)."""
    return cache_folder() / "judge" / hashlib.sha256(identity.encode()).hexdigest()[:16]


class ReplyStore:
    """Replies by the content of their question, and the ledger of every request ever sent for them. Thread-safe."""

    def __init__(self, identity: str, budget: Budget) -> None:
        self.folder, self.budget = store_folder(identity), budget
        self.ledger = self.folder / "ledger.jsonl"
        write_text(self.folder / "identity.json", identity + "\n")
        self._lock = threading.Lock()
        self.requests, self.tokens = self._spent()

    def _spent(self) -> tuple[int, int]:
        """Sum the ledger. A line torn by a kill still counts as a request, and is ended so that none joins it."""
        written = self.ledger.read_text(errors="replace") if self.ledger.exists() else ""
        if written and not written.endswith("\n"):
            self._append("\n")
        requests = tokens = 0
        for text in written.splitlines():
            requests += 1
            try:
                line = LedgerEntry.model_validate_json(text)
            except ValidationError:
                continue
            tokens += line.prompt_tokens + line.completion_tokens
        return requests, tokens

    @staticmethod
    def key(question: str, vote: int) -> str:
        """Return the key of one vote on one question."""
        return hashlib.sha256(json.dumps([question, vote]).encode()).hexdigest()

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Answer | None:
        """Return a complete answer kept earlier; None if there is none or its file is damaged."""
        try:
            answer = Answer.model_validate_json(self._file(key).read_bytes())
        except (ValidationError, OSError):
            return None
        return answer if answer.complete else None

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer; a reader never meets half of it."""
        file = self._file(key)
        with reraise_disk_errors(file):
            file.parent.mkdir(exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
            partial.write_text(answer.model_dump_json() + "\n")
            partial.replace(file)

    def reserve(self) -> None:
        """Count one request before it is sent. Raises BudgetError if one more would exceed the budget.

        Tokens are known only afterwards, so requests already under way may exceed that part of it.
        """
        with self._lock:
            for unit in ("requests", "tokens"):
                self._check(unit)
            self.requests += 1

    def _check(self, unit: Literal["requests", "tokens"]) -> None:
        spent, allowed = getattr(self, unit), getattr(self.budget, unit)
        if spent >= allowed:
            raise BudgetError(
                f"budget.{unit} is spent: {spent} of {allowed} ({self.ledger}). Every answer so far is kept and will "
                f"not be asked for again: raise budget.{unit} in the judge's file and run the same command again."
            )

    def record(self, line: LedgerEntry) -> None:
        """Append a request that has ended to the ledger."""
        with self._lock:
            self.tokens += line.prompt_tokens + line.completion_tokens
            self._append(line.model_dump_json() + "\n")

    def _append(self, text: str) -> None:
        with reraise_disk_errors(self.ledger), self.ledger.open("a") as stream:
            stream.write(text)

"""Choices of judges that are large language models: weights on this machine, or a server of OpenAI's protocol."""

import os
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from alignslm.config.calibration import Calibration
from alignslm.config.model import Config, Few, Fraction, HttpUrl, Name, Positive, PositiveCount, Seed
from alignslm.config.sources import Source

AnswerPrefix = Annotated[
    str, Field(min_length=1, description="text right before the rating in a reply, as the rubric asks for it")
]
MaxUnscored = Annotated[Fraction, Field(description="a stage fails if a larger fraction of its texts gets no score")]
AucTexts = Annotated[
    int, Field(ge=0, le=10_000, description="texts that the judge is tried on, each true and twice shuffled; 0: none")
]
MinAuc = Annotated[
    Fraction, Field(description="AUC, true against shuffled, that its score must exceed; .5 is guessing, 0 accepts any")
]
TRIAL = frozenset({"auc_texts", "min_auc", "min_digit_mass"})  # how a judge is tried, never how it judges
Temperature = Annotated[float, Field(ge=0, le=100, description="0 takes the likeliest token each time")]


class _Decoding(Config):
    temperature: Temperature | None
    max_tokens: PositiveCount = Field(
        description="longest answer, with its reasoning; one that reaches it rates nothing"
    )
    num_votes: Few = Field(description="replies per story; the score is the mean of those with a rating")

    @model_validator(mode="after")
    def _votes_differ(self) -> Self:
        if self.temperature and self.temperature < 1e-4:
            raise ValueError(f"temperature ({self.temperature:g}) is too near 0; write 0, or 0.0001 and more")
        if self.num_votes > 1 and self.temperature == 0:
            raise ValueError(
                f"num_votes is {self.num_votes}, but at temperature 0 every answer is the same; raise temperature"
            )
        return self


class ExpectedRating(Config):
    """The mean rating under the probabilities of the digits 1..5, read from one forward pass: nothing is written.

    The model is made to begin its answer with `answer_prefix`; its five probabilities there are normalised to 1.
    """

    mode: Literal["expected-value"]


class GeneratedRating(_Decoding):
    """The rating parsed from a generated answer, as in the paper."""

    mode: Literal["generate"]
    temperature: Temperature
    seed: Seed


class CalibratedPerplexity(Config):
    """The mean log-probability of the continuation's tokens, calibrated on `auc_texts` texts: no rubric is read."""

    mode: Literal["perplexity"]
    calibration: Calibration


class ServerDecoding(_Decoding):
    """How a server writes an answer; a field that is null is not sent."""

    seed: Seed | None


class CausalLMJudgeConfig(Config):
    """A causal language model from the Hub or a folder, with its tokenizer's chat template, if there is one."""

    kind: Literal["causal-lm"]
    weights: Source
    dtype: Literal["float32", "bfloat16", "float16"]
    rubric: Name = Field(description="file experiments/rubric/NAME.txt")
    answer_prefix: AnswerPrefix
    score: Annotated[ExpectedRating | GeneratedRating | CalibratedPerplexity, Field(discriminator="mode")]
    compute_perplexity: bool = Field(
        description="whether conditional perplexity is measured too, in further forward passes"
    )
    batch_size: PositiveCount = Field(
        description="rows of every forward pass (on a GPU of written answers only: there its memory says how many are "
        "read). Kernels round by shape, so this is no matter of execution"
    )
    max_unscored: MaxUnscored = 0.1
    auc_texts: AucTexts = 20
    min_auc: MinAuc = 0.5  # a judge of true AUC .75 is below on 20 texts once in a thousand
    min_digit_mass: Fraction = Field(
        default=0.1, description="mean probability of the five digits together that expected-value needs"
    )


class Budget(Config):
    """What may be asked of a server with one rubric and one decoding, counted over all runs of this machine."""

    requests: PositiveCount = Field(description="requests sent, repeated ones included")
    tokens: PositiveCount = Field(description="tokens read and written, as the server counts them")


class Price(Config):
    """What a server charges, in US dollars per million tokens; only `alignslm plan` reads it."""

    read: Annotated[float, Field(ge=0, le=10_000)]
    written: Annotated[float, Field(ge=0, le=10_000)]

    def usd(self, read_tokens: float, written_tokens: float) -> float:
        """Return the price of so many tokens."""
        return (read_tokens * self.read + written_tokens * self.written) / 1e6


_OWN_FIELDS = {"model", "messages", "temperature", "n", "stream"}


def _without_query(url: str) -> str:
    if set("?#") & set(url):
        raise ValueError("must end with the server's path, such as /v1; a query such as api-version is extra_query's")
    return url


class OpenAIJudgeConfig(Config):
    """A model behind the chat completions of an OpenAI-compatible server: OpenAI, Mistral, vLLM, ..."""

    kind: Literal["openai"]
    base_url: Annotated[HttpUrl, AfterValidator(_without_query)]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        description="environment variable with the API key; null if the server needs none"
    )
    api_key_header: Literal["Authorization", "api-key"] = Field(default="Authorization", description="api-key: Azure's")
    rubric: Name = Field(description="file experiments/rubric/NAME.txt")
    answer_prefix: AnswerPrefix
    decoding: ServerDecoding
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        description="how the server calls the longest answer; OpenAI's reasoning models know the second name only"
    )
    seed_field: Literal["seed", "random_seed"] = Field(default="seed", description="random_seed: Mistral's name for it")
    extra_body: dict[str, JsonValue] = Field(default={}, description="further fields of every request")
    extra_query: dict[str, str] = Field(default={}, description="query of the URL, such as Azure's api-version")
    budget: Budget
    price: Price | None = Field(default=None, exclude=True, description="not part of any artifact; null: unknown")
    concurrency: Few = Field(description="requests under way at once")
    timeout_s: Positive = Field(description="time limit for one whole reply")
    max_attempts: Few = Field(description="times one question is sent before the run stops")
    max_unscored: MaxUnscored = 0.1
    auc_texts: AucTexts = 20
    min_auc: MinAuc = 0.5

    @model_validator(mode="after")
    def _each_field_once(self) -> Self:
        if taken := sorted(self.extra_body.keys() & {*_OWN_FIELDS, self.max_tokens_field, self.seed_field}):
            raise ValueError(f"extra_body.{taken[0]}: its value follows from the other keys; remove it there")
        return self

    def fields(self, question: str, vote: int = 0) -> dict[str, JsonValue]:
        """Return the body of a request."""
        sent: dict[str, JsonValue] = {"model": self.model, "messages": [{"role": "user", "content": question}]}
        if self.decoding.temperature is not None:
            sent["temperature"] = self.decoding.temperature
        if self.decoding.seed is not None:
            sent[self.seed_field] = self.decoding.seed + vote
        return {**sent, self.max_tokens_field: self.decoding.max_tokens, **self.extra_body}

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, message) for variables that are missing or contradict the config."""
        value, name = self.api_key(), self.api_key_env
        other = os.environ.get("OPENAI_BASE_URL", "").strip()
        if name and not value:
            yield (
                "api_key_env",
                (
                    f"the environment variable {name} is not set, and {self.base_url} wants a key for {self.model!r}; "
                    f"export {name}=..., or choose another judge in params.yaml"
                ),
            )
        if odd := next((sign for sign in value or "" if not "!" <= sign <= "~"), None):
            yield (
                "api_key_env",
                f"the key in {name} contains {odd!r}, which is not allowed in a key; copy it again: export {name}=...",
            )
        if other and other.rstrip("/") != self.base_url.rstrip("/"):
            yield (
                "base_url",
                (
                    f"the environment variable OPENAI_BASE_URL names another server than {self.base_url}, and only the "
                    "file counts; set base_url there, or `unset OPENAI_BASE_URL`"
                ),
            )

    def api_key(self) -> str | None:
        """Return the key in the environment, if there is one."""
        return os.environ.get(self.api_key_env or "", "").strip() or None

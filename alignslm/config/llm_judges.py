"""Choices of judges that are large language models: weights on this machine, or a server of OpenAI's protocol."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignslm.config.model import Config, Name, Positive, PositiveCount, Seed
from alignslm.config.sources import Source

AnswerPrefix = Annotated[
    str, Field(min_length=1, description="what stands right before the rating in an answer, as the rubric asks for it")
]


class Decoding(Config):
    """How an answer is written."""

    temperature: Annotated[float, Field(ge=0)] = Field(description="0 takes the likeliest token each time")
    max_tokens: PositiveCount = Field(description="longest answer; one cut off before its rating rates nothing")
    num_votes: PositiveCount = Field(description="answers a story; the score is the mean of those that give a rating")
    seed: Seed

    @model_validator(mode="after")
    def _votes_differ(self) -> "Decoding":
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


class GeneratedRating(Decoding):
    """The rating that stands in an answer written out, as in the paper."""

    mode: Literal["generate"]


class CausalLMJudgeConfig(Config):
    """A causal language model from the Hub or a folder, through its chat template where its tokenizer has one."""

    kind: Literal["causal-lm"]
    weights: Source
    dtype: Literal["float32", "bfloat16", "float16"]
    rubric: Name = Field(description="file experiments/rubric/NAME.txt")
    answer_prefix: AnswerPrefix
    score: Annotated[ExpectedRating | GeneratedRating, Field(discriminator="mode")]
    compute_perplexity: bool = Field(
        description="whether conditional perplexity is measured too, in further forward passes"
    )
    batch_size: PositiveCount = Field(
        description="rows of every forward pass. Kernels round by shape, so this is no matter of execution"
    )


class Budget(Config):
    """What may be asked of a server with one rubric and one decoding, counted over all runs of this machine."""

    requests: PositiveCount = Field(description="requests sent, repeated ones included")
    tokens: PositiveCount = Field(description="tokens read and written, as the server counts them")


class OpenAIJudgeConfig(Config):
    """A model behind the chat completions of an OpenAI-compatible server: OpenAI, vLLM, `transformers serve`, ..."""

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        description="the environment variable that holds the key; null for a server that wants none"
    )
    rubric: Name = Field(description="file experiments/rubric/NAME.txt")
    answer_prefix: AnswerPrefix
    decoding: Decoding
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        description="how the server calls the longest answer; OpenAI's reasoning models know the second name only"
    )
    budget: Budget
    concurrency: PositiveCount = Field(description="requests under way at once")
    timeout_s: Positive
    max_attempts: PositiveCount = Field(description="times one question is sent before the run stops")

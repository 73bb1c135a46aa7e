"""Choices on the evaluation side: benchmarks, and how numbers are aggregated."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from alignslm.config.benchmarks import OfficialBenchmark
from alignslm.config.model import Config, Count, Few, Positive, PositiveCount, Seed


class ToyLexical(Config):
    """Spoken words against spoken non-words of the same shape (after sWUGGY)."""

    kind: Literal["toy-swuggy"]
    seed: Seed
    pairs: PositiveCount


class ToySyntactic(Config):
    """Grammatical against ungrammatical spoken sentences (after sBLIMP)."""

    kind: Literal["toy-sblimp"]
    seed: Seed
    pairs: PositiveCount


class ToyStoryCloze(Config):
    """True against foreign endings of held-out stories (after spoken and topic StoryCloze).

    Subtypes: `topic` (another topic's ending), and the harder same-topic negatives `pronoun`, `number`,
    `object`. The headline figure is `topic`, as in T-StoryCloze.
    """

    kind: Literal["toy-storycloze"]
    seed: Seed
    stories: PositiveCount = Field(description="each gives a `topic` pair")
    num_hard_stories: Count = Field(description="so many of them also give pairs of the harder subtypes")


ToyBenchmark: TypeAlias = ToyLexical | ToySyntactic | ToyStoryCloze


class CorpusClozeConfig(Config):
    """True against mismatched endings of the corpus's held-out speech: T-StoryCloze's question without texts.

    Every item is `context_s` of an utterance and `ending_s` after it, or after the same point of another utterance.
    """

    kind: Literal["corpus-cloze"]
    seed: Seed
    split: Literal["dev", "test"]
    pairs: PositiveCount = Field(description="so many at most; utterances too short for context and ending give none")
    context_s: Positive
    ending_s: Positive
    same_speaker: bool = Field(
        description="mismatched endings are of the same speaker, so the voice does not reveal them"
    )


BenchmarkConfig = Annotated[ToyBenchmark | CorpusClozeConfig | OfficialBenchmark, Field(discriminator="kind")]


class Evaluation(Config):
    """How held-out prompts are continued and how numbers are aggregated."""

    split: Literal["dev", "test"]
    num_continuations: Few
    likelihood: Literal["conditional", "joint"] = Field(
        description="an item's context (StoryCloze's story so far) only conditions its ending, or is scored with it"
    )
    reduction: Literal["mean", "sum"] = Field(description="log-likelihood per unit, or summed")
    include_eos: bool = Field(description="count the end-of-sequence token as a scored unit")

"""Schema of every table of the experiment: columns in their order, key, and where null means "not measured"."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from alignslm.config.guard import MEASURES

AUDIO = pl.Struct({"bytes": pl.Binary, "path": pl.String})  # the datasets library's audio feature
UNITS = pl.List(pl.UInt16)


@dataclass(frozen=True)
class Table:
    """Name, version, columns (order counts), key and the columns in which null means "not measured"."""

    name: str
    schema: Mapping[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    nullable: frozenset[str] = field(default_factory=frozenset)
    version: int = 1


UTTERANCES = Table(
    "utterances",
    {
        "utterance_id": pl.String,
        "split": pl.String,
        "speaker_id": pl.String,
        "text": pl.String,
        "prompt_text": pl.String,
        "continuation_text": pl.String,
        "prompt_end_s": pl.Float64,
        "word_ends_s": pl.List(pl.Float64),  # one time per word of `text`
        "num_samples": pl.Int64,
        "sample_rate_hz": pl.Int32,
        "audio": AUDIO,
    },
    ("utterance_id",),
    frozenset({"text", "prompt_text", "continuation_text", "prompt_end_s", "word_ends_s"}),
    version=2,
)
TEXTS = Table("texts", {"text_id": pl.String, "prompt_text": pl.String, "continuation_text": pl.String}, ("text_id",))
ENCODED = Table(
    "units",
    {"utterance_id": pl.String, "split": pl.String, "units": UNITS, "durations": UNITS},
    ("utterance_id",),
)
PROMPTS = Table(
    "prompts",
    {
        "prompt_id": pl.String,
        "utterance_id": pl.String,
        "split": pl.String,
        "end_s": pl.Float64,
        "num_units": pl.Int32,
        "units": UNITS,
        "continuation_units": UNITS,
        "prompt_text": pl.String,
        "continuation_text": pl.String,
    },
    ("prompt_id",),
    frozenset({"prompt_text", "continuation_text"}),
)
CONTINUATIONS = Table(
    "continuations",
    {
        "continuation_id": pl.String,
        "prompt_id": pl.String,
        "sample_index": pl.Int32,
        "model_id": pl.String,
        "seed": pl.Int64,
        "units": UNITS,
        "finish_reason": pl.String,
        "logprob": pl.Float64,
    },
    ("continuation_id",),
    version=2,
)
SPEECH = Table(
    "speech",
    {
        "continuation_id": pl.String,
        "audio": AUDIO,
        "num_samples": pl.Int64,
        "sample_rate_hz": pl.Int32,
        "status": pl.String,
    },
    ("continuation_id",),
)
TRANSCRIPTS = Table(
    "transcripts",
    {
        "source_id": pl.String,
        "text": pl.String,
        "status": pl.String,
        "confidence": pl.Float64,
        "raw_text": pl.String,
        "no_speech_prob": pl.Float64,
        "compression_ratio": pl.Float64,
    },
    ("source_id",),
    frozenset({"text", "confidence", "raw_text", "no_speech_prob", "compression_ratio"}),
    version=2,
)
SCORES = Table(
    "scores",
    {
        "continuation_id": pl.String,
        "prompt_id": pl.String,
        "sample_index": pl.Int32,
        "judge_score": pl.Float64,
        "ppl": pl.Float64,
        "auto_bleu": pl.Float64,
        "num_words": pl.Int32,
        "status": pl.String,
    },
    ("continuation_id",),
    frozenset({"judge_score", "ppl", "auto_bleu"}),
    version=2,
)
REPLIES = Table(
    "replies",
    {"continuation_id": pl.String, "judge": pl.String, "status": pl.String, "reply": pl.String},
    ("continuation_id",),
    frozenset({"reply"}),
)
REWARDS = Table(
    "rewards",
    {
        "continuation_id": pl.String,
        "prompt_id": pl.String,
        "rollout": pl.Int32,
        "num_same_text": pl.Int32,
        "reward": pl.Float64,
        "advantage": pl.Float64,
    },
    ("continuation_id",),
    frozenset({"reward"}),  # null: the judge failed, and nothing was learnt from it
)
UNIT_REWARDS = Table(
    "unit_rewards",
    {
        "continuation_id": pl.String,
        "prompt_id": pl.String,
        "split": pl.String,
        "judge_score": pl.Float64,
        "reward": pl.Float64,
    },
    ("continuation_id",),
    frozenset({"judge_score"}),
)
GUARD = Table(
    "guard",
    {
        "step": pl.Int64,
        **dict.fromkeys(MEASURES, pl.Float64),
        "exceeded": pl.List(pl.String),  # limits that the step is outside of, with its values
        "kept": pl.Boolean,
    },
    ("step",),
    frozenset(MEASURES),
    version=2,
)
PAIRS = Table(
    "pairs",
    {
        "pair_id": pl.String,
        "prompt_id": pl.String,
        "split": pl.String,
        "chosen_id": pl.String,
        "rejected_id": pl.String,
        "prompt_units": UNITS,
        "chosen_units": UNITS,
        "rejected_units": UNITS,
        "chosen_finish_reason": pl.String,
        "rejected_finish_reason": pl.String,
        "chosen_utility": pl.Float64,
        "rejected_utility": pl.Float64,
        "margin": pl.Float64,
    },
    ("pair_id",),
    frozenset({"chosen_utility", "rejected_utility", "margin"}),  # null: a preference given without a score,
    version=2,
)
LABELS = Table(
    "labels",
    {
        "continuation_id": pl.String,
        "prompt_id": pl.String,
        "split": pl.String,
        "utility": pl.Float64,
        "label": pl.String,
    },
    ("continuation_id",),
    frozenset({"utility"}),
)
SKIPPED_PROMPTS = Table(
    "skipped_prompts", {"prompt_id": pl.String, "split": pl.String, "reason": pl.String}, ("prompt_id",), version=2
)
ITEMS = Table(
    "items",
    {
        "item_id": pl.String,
        "pair_id": pl.String,  # shared by the voices that speak the pair
        "polarity": pl.String,
        "type": pl.String,
        "subtype": pl.String,
        "voice": pl.String,
        "text": pl.String,
        "frequency": pl.Int32,
        "band": pl.String,
        "length": pl.Int32,
        "context_units": UNITS,
        "units": UNITS,
        "num_samples": pl.Int64,
        "audio_sha256": pl.String,  # of the recording as released, or of `audio`
        "audio": AUDIO,  # without bytes if the recording is part of a release
    },
    ("item_id",),
    frozenset({"type", "text", "frequency", "band", "length"}),
    version=2,
)
ITEM_SCORES = Table(
    "item_scores",
    {
        "benchmark": pl.String,
        "pair_id": pl.String,
        "voice": pl.String,
        "model": pl.String,
        "type": pl.String,
        "subtype": pl.String,
        "band": pl.String,
        "length": pl.Int32,
        "positive_logprob": pl.Float64,  # under the declared convention
        "negative_logprob": pl.Float64,
        "positive_units": pl.Int32,
        "negative_units": pl.Int32,
        "correct": pl.Float64,
        "positive_context_logprob": pl.Float64,  # sums, from which every convention is computed
        "positive_context_units": pl.Int32,
        "positive_target_logprob": pl.Float64,
        "positive_target_units": pl.Int32,
        "positive_eos_logprob": pl.Float64,  # null: the model has no end of sequence
        "negative_context_logprob": pl.Float64,
        "negative_context_units": pl.Int32,
        "negative_target_logprob": pl.Float64,
        "negative_target_units": pl.Int32,
        "negative_eos_logprob": pl.Float64,
    },
    ("benchmark", "pair_id", "voice", "model"),
    frozenset({"type", "band", "length", "positive_logprob", "negative_logprob", "correct"})
    | {"positive_eos_logprob", "negative_eos_logprob"},
    version=3,
)
CONTINUATION_METRICS = Table(
    "judged",
    {
        "model": pl.String,
        "continuation_id": pl.String,
        "prompt_id": pl.String,
        "sample_index": pl.Int32,
        "metric": pl.String,
        "value": pl.Float64,
    },
    ("model", "continuation_id", "metric"),
    frozenset({"value"}),
    version=2,
)
MOS = Table(
    "mos",
    {
        "system": pl.String,
        "source_id": pl.String,
        "prompt_id": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "status": pl.String,
    },
    ("system", "source_id", "metric"),
    frozenset({"value"}),
)
CLIPS = Table(
    "clips",
    {
        "clip_id": pl.String,
        "prompt_id": pl.String,
        "system": pl.String,
        "continuation_id": pl.String,
        "boundary_s": pl.Float64,
        "duration_s": pl.Float64,
    },
    ("clip_id",),
)
RATINGS = Table(
    "ratings",
    {
        "rater_id": pl.String,
        "clip_id": pl.String,
        "prompt_id": pl.String,
        "system": pl.String,
        "continuation_id": pl.String,
        "position": pl.Int32,
        "score": pl.Int32,
        "num_changes": pl.Int32,
        "num_plays": pl.Int32,
        "response_time_s": pl.Float64,
        "received_at": pl.String,
    },
    ("rater_id", "clip_id"),
    version=2,
)

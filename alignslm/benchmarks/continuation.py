"""Judged continuations of held-out prompts: what sampled speech says, by every judge and by plain counts."""

from collections.abc import Callable, Mapping

import polars as pl

from alignslm import metrics, tables
from alignslm.config.feedback import AutoBleu
from alignslm.judge import Judge
from alignslm.judge.rows import judge_transcripts

GrammarCheck = Callable[[str, str], bool]


def judged_rows(
    stories: pl.DataFrame,
    continuations: pl.DataFrame,
    speech: pl.DataFrame,
    judges: Mapping[str, Judge],
    *,
    model: str,
    auto_bleu: AutoBleu,
    grammar: GrammarCheck | None,
) -> pl.DataFrame:
    """Return rows of the judged table: every metric of every continuation, null where it could not be measured.

    `stories` as for `judge.rows.score`; `speech` has num_samples, sample_rate_hz and what `spoken.measure_speech`
    finds, by continuation_id; `judges` maps the metric's name (judge_score, heldout_judge_score) to who scores it.
    `ppl` is the first judge's that gives one. `grammatical` says whether the embedded corpus's grammar can produce
    the text, word for word, after that prompt: a check no model takes part in.
    """
    made = stories.join(
        continuations.select("continuation_id", num_units=pl.col("units").list.len(), finish_reason="finish_reason"),
        on="continuation_id",
        validate="1:1",
    ).join(speech, on="continuation_id", validate="1:1")
    texts = made["text"].to_list()
    columns: dict[str, list[float | None]] = {}
    for name, judge in judges.items():
        judgements = judge_transcripts(made, judge)
        columns[name] = [item.score for item in judgements]
        if any(item.ppl is not None for item in judgements):
            columns.setdefault("ppl", [item.ppl for item in judgements])
    columns["auto_bleu"] = [metrics.auto_bleu(text, definition=auto_bleu) if text else None for text in texts]
    columns["num_words"] = [float(metrics.num_words(text)) if text else 0.0 for text in texts]
    columns["num_units"] = made["num_units"].cast(pl.Float64).to_list()
    columns["duration_s"] = (made["num_samples"] / made["sample_rate_hz"]).to_list()
    columns |= {name: made[name].to_list() for name in ("silence_ratio", "unit_error_rate")}
    columns["eos_rate"] = [float(finish == "eos") for finish in made["finish_reason"]]
    if grammar:
        columns["grammatical"] = [
            float(grammar(prompt, text)) if text else 0.0
            for prompt, text in zip(made["prompt_text"], texts, strict=True)
        ]
    wide = made.select("continuation_id", "prompt_id", "sample_index").with_columns(
        pl.lit(model).alias("model"), *(pl.Series(name, values, pl.Float64) for name, values in columns.items())
    )
    long = wide.unpivot(
        on=list(columns), index=["model", "continuation_id", "prompt_id", "sample_index"], variable_name="metric"
    )
    return tables.conform(long, tables.CONTINUATION_METRICS)

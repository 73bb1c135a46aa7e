"""One continuation's chain of steps, each the columns of one row of one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.experiment import Experiment
from alignslm.lineage.rule import explain_selection


@dataclass(frozen=True)
class Step:
    """One step: its title, the table it was read from (None if there is none), and its values by column."""

    title: str
    source: Path | None
    facts: Mapping[str, object]


@dataclass(frozen=True)
class Location:
    """The tables of a continuation: sampled for a round, to evaluate a system, or in online training (`kind`)."""

    kind: str
    name: str
    table: Path
    speech: Path
    transcripts: Path


@dataclass(frozen=True)
class Chain:
    """A continuation, its tables, and the steps that made and judged it."""

    continuation_id: str
    place: Location
    steps: tuple[Step, ...]


def chain_of(continuation_id: str, place: Location, folder: Path, experiment: Experiment) -> Chain:
    """Read one continuation's chain from `folder` (artifacts/). Tables that do not exist yet have no step."""
    drawn = read_row(tables.CONTINUATIONS, place.table, "continuation_id", continuation_id)
    prompt = read_row(tables.PROMPTS, Artifacts(folder).prompts, "prompt_id", str(drawn.facts["prompt_id"]))
    steps = [
        _utterance(folder, prompt),
        Step("prompt", prompt.source, prompt.facts),
        _heard(folder, prompt),
        _model(drawn, place, experiment),
        Step("continuation", drawn.source, drawn.facts),
        read_row(tables.SPEECH, place.speech, "continuation_id", continuation_id, title="speech"),
        read_row(tables.TRANSCRIPTS, place.transcripts, "source_id", continuation_id, title="transcript"),
        *_judged(continuation_id, place, folder, experiment),
    ]
    return Chain(continuation_id, place, tuple(step for step in steps if step.facts))


def read_row(table: tables.Table, path: Path, column: str, value: str, *, title: str | None = None) -> Step:
    """Return the row of a table with `value` in `column`, without audio. No facts if there is no such row."""
    name = title or table.name
    if not path.exists():
        return Step(name, None, {})
    for part in tables.iterate(table, path, [n for n, kind in table.schema.items() if kind != tables.AUDIO]):
        found = part.filter(pl.col(column) == value)
        if len(found):
            return Step(name, path, found.row(0, named=True))
    return Step(name, path, {})


def _utterance(folder: Path, prompt: Step) -> Step:
    if not prompt.facts:
        return Step("utterance", None, {})
    path = Artifacts(folder).utterances
    step = read_row(tables.UTTERANCES, path, "utterance_id", str(prompt.facts["utterance_id"]), title="utterance")
    return Step(step.title, step.source, {k: v for k, v in step.facts.items() if k != "word_ends_s"})


def _heard(folder: Path, prompt: Step) -> Step:
    """Return the prompt's transcript, if the corpus has no text of it."""
    if not prompt.facts or prompt.facts["prompt_text"] is not None:
        return Step("prompt transcript", None, {})
    path = Artifacts(folder).prompt_transcripts
    return read_row(tables.TRANSCRIPTS, path, "source_id", str(prompt.facts["prompt_id"]), title="prompt transcript")


def _model(drawn: Step, place: Location, experiment: Experiment) -> Step:
    params = experiment.params
    if place.kind == "online":
        return Step("model", None, {"checkpoint": place.name, "model_id": drawn.facts["model_id"]})
    if place.kind == "round":
        checkpoint = params.preferences[place.name].sampled_from if place.name in params.preferences else None
        seed = params.seeds.sampling
    else:
        checkpoint = params.sampled_checkpoint(place.name) if place.name in params.systems else place.name
        seed = params.seeds.evaluation
    sampling = params.sampling.model_dump()
    return Step(
        "model", None, {"checkpoint": checkpoint, "model_id": drawn.facts["model_id"], "seed": seed, **sampling}
    )


def _judged(continuation_id: str, place: Location, folder: Path, experiment: Experiment) -> list[Step]:
    if place.kind == "system":
        path = Artifacts(folder).judged(place.name)
        if not path.exists():
            return []
        judged = tables.read(tables.CONTINUATION_METRICS, path).filter(pl.col("continuation_id") == continuation_id)
        return [Step("evaluation", path, dict(judged.select("metric", "value").iter_rows()))]
    replies, scores = (Artifacts(folder).table(kind, place.name) for kind in ("replies", "scores"))
    if place.kind == "online":
        replies, scores = (place.table.with_name(f"{kind}.parquet") for kind in ("replies", "scores"))
    steps = [
        read_row(tables.REPLIES, replies, "continuation_id", continuation_id, title="judge's reply"),
        read_row(tables.SCORES, scores, "continuation_id", continuation_id, title="scores"),
    ]
    if place.kind == "online":  # those of a reward model are all there is
        rewards = place.table.with_name("rewards.parquet")
        return [*steps, read_row(tables.REWARDS, rewards, "continuation_id", continuation_id, title="reward")]
    if steps[1].facts and place.name in experiment.params.preferences:
        facts = explain_selection(continuation_id, place.name, folder, experiment)
        steps.append(Step("rule", Artifacts(folder).table("pairs", place.name), facts))
        for name in (name for name, item in experiment.params.checkpoints.items() if item.pairs == place.name):
            path = Artifacts(folder).labels(name)
            steps.append(read_row(tables.LABELS, path, "continuation_id", continuation_id, title=f"label for {name}"))
    return steps

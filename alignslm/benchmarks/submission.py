"""A submission to ZeroSpeech's sLM21 benchmark: a score for every recording, and who made the system.

    FOLDER/lexical/{dev,test}.txt     one `<file name without .wav> <score>` a line
    FOLDER/syntactic/{dev,test}.txt
    FOLDER/meta.yaml, params.yaml

The toolkit drops recordings without a score, and a NaN loses every comparison in its scorer, so both are errors here.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import polars as pl
from pydantic import Field, ValidationError

from alignslm.benchmarks import BenchmarkError
from alignslm.config.document import read_document
from alignslm.config.model import Config
from alignslm.storage import write_text

Task: TypeAlias = Literal["lexical", "syntactic"]
SHOWN = 5
TEMPLATE = """\
# Fill in before you submit: the toolkit rejects everything in <...>.
username: <your name on zerospeech.com>
benchmark_name: sLM21
model_info:
  system_description: <what the system is>
  train_set: <what it was trained on>
  gpu_budget: <GPU hours of its training>
publication:
  author_label: <a short label, such as Author et al.>
  authors: <full names, separated by commas>
  paper_title: <title of the paper>
  paper_url: <where the paper is>
  publication_year: {year}
  institution: <university or company>
  team: <name of the team>
open_source: true
code_url: <where the code is>
"""
PARAMS = """\
quiet: false
semantic: {librispeech: false, metric: euclidean, n_jobs: 1, pooling: mean, synthetic: false}
"""


class Part(NamedTuple):
    """One task and split: rows of the items table, and one model's rows of the item scores table."""

    task: Task
    split: Literal["dev", "test"]
    items: pl.DataFrame
    scores: pl.DataFrame


Filled = Annotated[str, Field(min_length=1)]


class _ModelInfo(Config):
    model_id: str | None = None
    system_description: Filled
    train_set: Filled
    gpu_budget: str | None = None


class _Publication(Config):
    author_label: str = ""
    authors: Filled
    paper_title: str | None = None
    paper_url: str | None = None
    publication_year: int
    bib_reference: str | None = None
    DOI: str | None = None
    institution: Filled
    team: str | None = None


class _Meta(Config):
    username: Filled
    submission_id: str | None = None
    benchmark_name: Literal["sLM21"]
    model_info: _ModelInfo
    publication: _Publication
    open_source: bool
    code_url: str | None = None


def recording_scores(part: Part) -> pl.DataFrame:
    """Return item_id and score (reported log-likelihood, nats) of every recording, sorted.

    Raises BenchmarkError if one was not measured or is not finite.
    """
    sides = [
        part.scores.select("pair_id", "voice", pl.lit(side).alias("polarity"), pl.col(f"{side}_logprob").alias("score"))
        for side in ("positive", "negative")
    ]
    joined = part.items.select("item_id", "pair_id", "voice", "polarity").join(
        pl.concat(sides), on=["pair_id", "voice", "polarity"], how="left", validate="1:1"
    )
    missing = joined.filter(~pl.col("score").is_finite().fill_null(value=False))["item_id"].sort()
    if len(missing):
        raise BenchmarkError(
            f"{len(missing)} of {len(joined)} recordings of {part.task}/{part.split} have no finite score "
            f"({_some(missing.to_list())}): a submission needs one for each. Look at their rows in the item scores; "
            "a recording too short for a single unit has none."
        )
    return joined.select("item_id", "score").sort("item_id")


def write_submission(folder: Path, parts: list[Part], *, meta: Path | None, year: int) -> list[str]:
    """Write a submission and return what is missing. Floats keep every digit.

    Without `meta` a template is written, to be filled in. Raises BenchmarkError if scores are missing.
    """
    for part in parts:
        rows = recording_scores(part).iter_rows()
        write_text(folder / part.task / f"{part.split}.txt", "".join(f"{name} {score!r}\n" for name, score in rows))
    write_text(folder / "params.yaml", PARAMS)
    write_text(folder / "meta.yaml", TEMPLATE.format(year=year) if meta is None else meta.read_text())
    return meta_problems(folder / "meta.yaml")


def meta_problems(path: Path) -> list[str]:
    """Return what the toolkit would reject in a meta.yaml: absent, empty, unknown or unedited fields."""
    document = read_document(path)
    if isinstance(document, list):
        return [str(problem) for problem in document]
    try:
        meta = _Meta.model_validate(document.data)
    except ValidationError as error:
        return [f"{path.name}: {'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors()]
    values = meta.model_dump()
    flat = {**values, **{f"{k}.{n}": v for k in ("model_info", "publication") for n, v in values[k].items()}}
    left = [key for key, value in flat.items() if isinstance(value, str) and value.startswith("<")]
    return [f"{path.name}: {key} is left from the template" for key in left]


def _some(names: list[str] | list[int]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more

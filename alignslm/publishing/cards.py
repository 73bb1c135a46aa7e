"""The two cards: facts from the artifacts for the templates model_card.md and dataset_card.md."""

import json
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from huggingface_hub import DatasetCardData, ModelCardData
from safetensors import safe_open

from alignslm import report as report_package
from alignslm.artifacts import Artifacts
from alignslm.config.corpora import Recordings
from alignslm.config.experiment import Experiment
from alignslm.config.publishing import HubPublishing
from alignslm.integrity import read_json
from alignslm.lm.checkpoint import CONTRACT_FILE, VOCABULARY_FILE
from alignslm.lm.pretrained import SOURCE_FILE
from alignslm.pairs.counts import PairCounts
from alignslm.prompts import read_prompts
from alignslm.provenance import UnitContract, file_sha256
from alignslm.publishing.dataset import Subset
from alignslm.publishing.lineage import Lineage
from alignslm.publishing.model import hub_name_of_start
from alignslm.publishing.results import curriculum, eval_results, result_facts
from alignslm.report.formatting import FILTERS, PROCEDURE, heading
from alignslm.report.inputs import TrainingLog
from alignslm.report.metrics import Report
from alignslm.templates import environment
from alignslm.units import UnitVocabulary

FENCE = "```python"  # not in the templates: Markdown formatters would take their gaps for code
TAGS = ["alignslm", "align-slm", "textless", "spoken-language-model", "speech", "preference-optimization"]
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SHOWN_UNITS = 60
ALWAYS_CITED = ("lin2025alignslm", "rafailov2023dpo", "hu2021lora")
CITED_FOR = {  # kind of a config -> key in references.bib
    "twist": "hassid2023twist", "twist-init": "hassid2023twist", "slam": "maimon2025slamming",
    "hubert": "hsu2021hubert", "unit-hifigan": "polyak2021resynthesis", "whisper": "radford2022whisper",
    "librispeech": "panayotov2015librispeech", "mls": "pratap2020mls",
}  # fmt: skip


class CardContext(NamedTuple):
    """The published repositories; names are filled in."""

    experiment: Experiment
    config: HubPublishing
    round: str
    lineage: Lineage
    artifacts: Artifacts
    model_repo: str | None
    dataset_repo: str | None

    @property
    def tag(self) -> str:
        """The tag of this push."""
        return self.config.tag.replace("{round}", self.round).replace("{experiment}", self.lineage.experiment_id)

    @property
    def checkpoint(self) -> Path:
        """The folder of the round's checkpoint."""
        return self.artifacts.checkpoint(self.round)


class RoundPairs(NamedTuple):
    """A round of the curriculum up to the published one, with the counts of its pairs."""

    name: str
    pair_counts: PairCounts


def model_title(published: CardContext) -> str:
    """Return the model's name."""
    params = published.experiment.params
    return f"{params.lm} aligned on {params.corpus}, round {published.round}"


def dataset_title(published: CardContext) -> str:
    """Return the dataset's name."""
    params = published.experiment.params
    return f"Spoken preference pairs on {params.corpus}, round {published.round} of {params.lm}"


def model_card(published: CardContext, report: Report) -> bytes:
    """Return README.md of a model repository."""
    experiment, name, folder = published.experiment, published.round, published.checkpoint
    prompt, end_s = _example(published)
    return _render(
        "model_card.md",
        _model_metadata(published, report),
        published,
        title=model_title(published),
        vocabulary=read_json(folder / VOCABULARY_FILE, UnitVocabulary),
        parameters=_parameters(folder),
        dtype=json.loads((folder / "config.json").read_text())["dtype"],
        prompt_units=textwrap.fill(str(prompt)[1:-1], 96, subsequent_indent=" " * 9),
        prompt_end_s=end_s,
        hub_start=hub_name_of_start(experiment, name),
        rounds=[
            RoundPairs(each, read_pair_counts(published.artifacts, experiment.params.aligned[each].pairs))
            for each in curriculum(experiment, name)
        ],
        log=read_json(published.artifacts.training(name), TrainingLog),
        **result_facts(report, experiment, name),
    )


def _model_metadata(published: CardContext, report: Report) -> ModelCardData:
    experiment, config = published.experiment, published.config
    return ModelCardData(
        language=config.language,
        license=config.model.license if config.model else None,
        library_name="transformers",
        pipeline_tag="audio-to-audio",
        tags=TAGS,
        base_model=getattr(getattr(experiment.lm, "weights", None), "repo", None),
        datasets=[published.dataset_repo] if published.dataset_repo else None,
        model_name=model_title(published),
        eval_results=eval_results(report, experiment, published.round),
    )


def _example(published: CardContext) -> tuple[list[int], float]:
    """Return the units of the evaluation split's first prompt, and its end in seconds."""
    prompts = read_prompts(*published.artifacts.prompt_tables).filter(
        pl.col("split") == published.experiment.params.evaluation.split
    )
    row = prompts.row(0, named=True)
    return row["units"][:SHOWN_UNITS], row["end_s"]


def _parameters(folder: Path) -> int:
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                total += math.prod(weights.get_slice(name).get_shape())
    return total


def dataset_card(published: CardContext, subsets: Sequence[Subset], *, sample_rate_hz: int) -> bytes:
    """Return README.md of a dataset repository; its metadata maps files to splits for the viewer."""
    pair_counts = read_pair_counts(published.artifacts, published.experiment.params.aligned[published.round].pairs)
    return _render(
        "dataset_card.md",
        _dataset_metadata(published, subsets),
        published,
        title=dataset_title(published),
        subsets=subsets,
        splits=list(dict.fromkeys(split for subset in subsets for split in subset.num_rows)),
        sample_rate_hz=sample_rate_hz,
        pair_counts=pair_counts,
        reasons=[
            reason
            for reason, count in pair_counts.train.skipped_prompts.items()
            if count or pair_counts.valid.skipped_prompts[reason]
        ],
    )  # fmt: skip


def _dataset_metadata(published: CardContext, subsets: Sequence[Subset]) -> DatasetCardData:
    config = published.config.dataset
    rows = sum(subsets[0].num_rows.values())
    return DatasetCardData(
        language=published.config.language,
        license=config.license if config else None,
        pretty_name=dataset_title(published),
        task_categories=["audio-to-audio"],
        size_categories=next((name for limit, name in SIZES if rows < limit), "n>1M"),
        tags=[*TAGS, "audio", "dpo"],
        configs=[
            {
                "config_name": subset.name,
                **({"default": True} if subset.name == "pairs" else {}),
                "data_files": [{"split": split, "path": f"{subset.name}/{split}-*"} for split in subset.splits],
            }
            for subset in subsets
        ],
    )


def read_pair_counts(artifacts: Artifacts, name: str) -> PairCounts:
    """Return the counts of a round's pairs."""
    return read_json(artifacts.pair_counts(name), PairCounts)


def _render(template: str, metadata: ModelCardData | DatasetCardData, published: CardContext, **facts: object) -> bytes:
    """Return a card: the metadata block, then the filled template. A missing value is an error."""
    experiment, artifacts = published.experiment, published.artifacts
    templates = environment(Path(__file__).parent, Path(report_package.__path__[0]), html=False)
    templates.filters |= FILTERS
    templates.globals |= {"heading": heading, "procedure": PROCEDURE}
    text = templates.get_template(template).render(
        python=FENCE,
        published=published,
        experiment=experiment,
        params=experiment.params,
        contract=read_json(published.checkpoint / CONTRACT_FILE, UnitContract),
        base_identity=_base_identity(artifacts),
        weights=[
            _weights(artifacts, name)
            for name in (experiment.params.aligned[published.round].init_from, published.round)
        ],
        citations=citations(experiment),
        **facts,
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{text}".encode()


def _base_identity(artifacts: Artifacts) -> str:
    """Return the base model's resolved source if it was published, otherwise the hashes of its files."""
    folder = artifacts.checkpoint("base")
    record = folder / SOURCE_FILE
    if record.is_file():
        return str(json.loads(record.read_text())["identity"])
    return ", ".join(f"sha256:{file_sha256(path)} ({path.name})" for path in sorted(folder.glob("*.safetensors")))


def _weights(artifacts: Artifacts, name: str) -> str:
    record = artifacts.checkpoint(name) / "weights.json"
    return str(json.loads(record.read_text())["model_id"]) if record.is_file() else "not recorded"


def citations(experiment: Experiment) -> str:
    """Return the BibTeX entries of the method and of the models and data of an experiment."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    entries = {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in re.split(r"\n\n", text.strip())}
    cited = dict.fromkeys([*ALWAYS_CITED, *(CITED_FOR[kind] for kind in _kinds(experiment) if kind in CITED_FOR)])
    return "\n".join(entries[key] for key in cited)


def _kinds(experiment: Experiment) -> Iterator[str]:
    for config in (experiment.lm, experiment.encoder, experiment.vocoder, experiment.asr):
        yield config.kind
    if isinstance(experiment.corpus, Recordings):
        yield from sorted(part.kind for part in experiment.corpus.parts.values())

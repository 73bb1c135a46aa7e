"""What the parts of an experiment are and whose work they are: base model, speech, judge, recogniser."""

import json
from collections.abc import Iterator
from pathlib import Path

from alignslm.config.corpora import LibriSpeechPart, ListedPart, MlsPart, ParquetPart, PartConfig, Recordings
from alignslm.config.experiment import Experiment
from alignslm.config.llm_judges import CausalLmJudge, OpenAiJudge
from alignslm.config.models import LlamaScratch
from alignslm.config.pretrained_lm import WarmStart
from alignslm.config.sources import AnySource, FolderSource, HubSource, UrlSource
from alignslm.config.speech import StoryWorld
from alignslm.lm.pretrained import SOURCE_FILE
from alignslm.provenance import file_sha256

UNKNOWN = "not known to the code that wrote this card; ask whoever publishes it"
CC_BY = "Licence: CC BY 4.0"


def told(source: AnySource) -> str:
    """Return a source as a card says it, without paths of this machine."""
    match source:
        case HubSource():
            kind = "datasets/" if source.repo_type == "dataset" else ""
            return f"[{source.repo}](https://huggingface.co/{kind}{source.repo}) at revision `{source.revision}`"
        case UrlSource():
            return f"{source.url.partition('?')[0]} (sha256 `{source.sha256}`)"
        case FolderSource():
            return f"a local copy, folder `{Path(source.path).name}`"


def base_model(experiment: Experiment) -> str:
    """Return one sentence on the model that alignment began with."""
    lm, name = experiment.lm, experiment.params.lm
    if isinstance(lm, LlamaScratch):
        return (
            f"`{name}`, a Llama of {lm.layers} layers and hidden size {lm.hidden_size} over units, trained from "
            f"scratch on the training speech of this run ({lm.steps} steps of {lm.batch_size} utterances)"
        )
    if isinstance(lm, WarmStart):
        return (
            f"`{name}`, the text model {told(lm.weights)}, its token embedding exchanged for one of units, "
            f"then trained on the training speech of this run ({lm.steps} steps of {lm.batch_size} utterances; TWIST's "
            "initialisation)"
        )
    return f"`{name}`, {told(lm.weights)}"


def base_identity(artifacts: Path) -> str:
    """Return what the base model's weights are: where a published one was resolved to, or a hash of its files."""
    folder = artifacts / "checkpoints" / "base"
    record = folder / SOURCE_FILE
    if record.is_file():
        return str(json.loads(record.read_text())["identity"])
    return ", ".join(f"sha256:{file_sha256(path)} ({path.name})" for path in sorted(folder.glob("*.safetensors")))


def training_data(experiment: Experiment) -> list[tuple[str, str]]:
    """Return (what it is, its licence) for every part of the training speech."""
    corpus = experiment.corpus
    if isinstance(corpus, StoryWorld):
        drifted = (
            f" {100 * corpus.drift:.0f} % of the training stories continue with another story's ending, on purpose: a "
            "clean corpus would leave the model nothing to learn from feedback."
            if corpus.drift
            else ""
        )
        what = (
            f"{corpus.stories.train} synthetic stories of a small English grammar, spoken by espeak-ng (voice "
            f"`{corpus.voice}`, {corpus.words_per_minute} words a minute). No person's voice, no collected text."
            f"{drifted}"
        )
        return [(what, "Nobody else's licence binds it")]
    return [(f"{name}: {_part(part)}", _licence(part)) for name, part in _parts(corpus)]


def _parts(corpus: Recordings) -> Iterator[tuple[str, PartConfig]]:
    for name, part in corpus.parts.items():
        if part.subsets.train:
            yield name, part


def _part(part: PartConfig) -> str:
    known = {"librispeech": "LibriSpeech", "mls": "Multilingual LibriSpeech (MLS)", "listed": "recordings of its own"}
    what = known.get(part.kind) or told(part.source)
    limit = f", at most {part.at_most.train} utterances" if part.at_most.train else ""
    return f"{what}, subsets {', '.join(f'`{subset}`' for subset in part.subsets.train)}{limit}"


def _licence(part: PartConfig) -> str:
    match part:
        case LibriSpeechPart() | MlsPart():
            return CC_BY
        case ParquetPart():
            return f"Licence: {'that of its page on the Hub' if isinstance(part.source, HubSource) else UNKNOWN}"
        case ListedPart():
            return f"Licence: {UNKNOWN}"


def judge_of(choice: str, judge: object) -> str:
    """Return what scores continuations."""
    match judge:
        case CausalLmJudge():
            return f"`{choice}` ({told(judge.weights)})"
        case OpenAiJudge():
            return f"`{choice}` (`{judge.model}` behind {judge.base_url})"
        case _:
            return f"`{choice}` (a small text model fitted on clean texts of the corpus, no general judge)"


def choice_of(choice: str, config: object) -> str:
    """Return a model of the speech side: its name, and where its weights are from."""
    weights = getattr(config, "weights", None)
    return f"`{choice}`" if weights is None else f"`{choice}` ({told(weights)})"

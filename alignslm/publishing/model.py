"""The files of a model repository: a plain transformers folder, the adapter, and the speech models."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import BASE, Experiment
from alignslm.config.feedback import Sampling
from alignslm.config.pretrained_lm import PublishedLm
from alignslm.config.publishing import ModelRepository
from alignslm.config.sources import HubSource
from alignslm.integrity import read_json
from alignslm.lm.checkpoint import ADAPTER_FOLDER, CONTRACT_FILE, VOCABULARY_FILE
from alignslm.publishing import PublishError
from alignslm.publishing.lineage import PARAMETERS
from alignslm.units import UnitVocabulary

Bundle: TypeAlias = dict[str, Path | bytes]  # name in the repository -> a local file, or its content

ADAPTER, START = "adapter", "start"
SPEECH = f"{PARAMETERS}/artifacts"  # next to its params.yaml: where `alignslm generate --root` looks for them
MEANING = (VOCABULARY_FILE, CONTRACT_FILE)
_PLAIN = ("config.json", *MEANING, "*.safetensors", "*.safetensors.index.json")
_SPEECH_PARTS = ("encoder", "vocoder", "asr")


def model_files(experiment: Experiment, name: str, config: ModelRepository, artifacts: Artifacts) -> Bundle:
    """Return the files of a round's model without card and parameters. Nothing is copied: weights stay in place."""
    checkpoint = artifacts.checkpoint(name)
    start = artifacts.checkpoint(experiment.params.aligned[name].init_from)
    files: Bundle = dict(plain_files(checkpoint))
    vocabulary = read_json(checkpoint / VOCABULARY_FILE, UnitVocabulary)
    files["generation_config.json"] = generation_config(
        vocabulary,
        experiment.params.sampling,
        vocab_size=json.loads((checkpoint / "config.json").read_text())["vocab_size"],
    )
    if config.adapter:
        files |= _adapter_files(checkpoint, base=hub_name_of_start(experiment, name))
    if config.base_model:
        files |= {f"{START}/{file}": path for file, path in plain_files(start)}
    if config.speech_models:
        for part in _SPEECH_PARTS:
            folder = artifacts.root / part
            found = {
                f"{SPEECH}/{part}/{path.relative_to(folder).as_posix()}": path for path in sorted(folder.rglob("*"))
            }
            files |= {file: path for file, path in found.items() if path.is_file()}
    return files


def plain_files(checkpoint: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that transformers loads, and the unit contract and vocabulary. PublishError without weights."""
    found = sorted({path for pattern in _PLAIN for path in checkpoint.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in found):
        raise PublishError(
            f"{checkpoint} contains no weights. Run `dvc repro` to create it or `dvc pull` to download it."
        )
    for path in found:
        yield path.name, path


def generation_config(vocabulary: UnitVocabulary, sampling: Sampling, *, vocab_size: int) -> bytes:
    """Return a generation_config.json that samples like this experiment: only units and EOS."""
    units = range(vocabulary.offset, vocabulary.offset + vocabulary.num_units)
    special = [token for token in range(vocab_size) if token not in units and token != vocabulary.eos_id]
    content = {
        "bos_token_id": vocabulary.bos_id,
        "do_sample": True,
        "eos_token_id": vocabulary.eos_id,
        "max_new_tokens": sampling.max_new_units,
        "pad_token_id": vocabulary.pad_id,
        "suppress_tokens": special or None,
        "temperature": sampling.temperature,
        "top_k": 0,
        "top_p": sampling.top_p,
    }
    return _json({key: value for key, value in content.items() if value is not None})


def hub_name_of_start(experiment: Experiment, name: str) -> str | None:
    """Return the Hub id of the model that a round's adapter was trained on, None if it is not on the Hub."""
    weights = getattr(experiment.lm, "weights", None)
    untouched = isinstance(experiment.lm, PublishedLm) and experiment.params.aligned[name].init_from == BASE
    return weights.repo if untouched and isinstance(weights, HubSource) else None


def _adapter_files(checkpoint: Path, *, base: str | None) -> Bundle:
    """Return the adapter as PEFT loads it, without the local path that PEFT wrote into its config."""
    places = sorted((checkpoint / ADAPTER_FOLDER).rglob("adapter_config.json"))
    if not places:
        raise PublishError(
            f"{checkpoint / ADAPTER_FOLDER} contains no adapter. Run "
            f"`dvc repro --force train@{checkpoint.name}`, or publish without it: "
            "model.adapter: false."
        )
    config = json.loads(places[0].read_text())
    files: Bundle = {f"{ADAPTER}/adapter_config.json": _json({**config, "base_model_name_or_path": base})}
    files |= {f"{ADAPTER}/{path.name}": path for path in sorted(places[0].parent.glob("*.safetensors"))}
    return files | {f"{ADAPTER}/{name}": checkpoint / name for name in MEANING}


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()

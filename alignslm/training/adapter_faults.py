"""What keeps the adapters of an experiment from sitting on its unit LM, found before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from alignslm.config.document import read_document
from alignslm.config.experiment import Experiment
from alignslm.config.models import ALL_LINEAR, LlamaScratchConfig, Lora
from alignslm.config.pretrained_lm import HFLMConfig
from alignslm.config.problems import ConfigProblem
from alignslm.config.sources import FolderSource

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_KEY = ("lora", "target_modules")


def adapter_faults(experiment: Experiment, root: Path = Path()) -> list[ConfigProblem]:
    """Return the trainers whose target modules the unit LM lacks; none if its config is not on this machine.

    transformers is imported only if modules are named, or the model may be of any architecture.
    """
    trainers = {
        choice.file: lora
        for choice in experiment.choices()
        if isinstance(lora := getattr(choice.config, "lora", None), Lora)
    }
    named = any(lora.target_modules != ALL_LINEAR for lora in trainers.values())
    model = _model_config(experiment, root) if named or isinstance(experiment.lm, HFLMConfig) else None
    if model is None:
        return []
    from alignslm.training.adapter import AdapterError, lora_config

    found = []
    for file, lora in trainers.items():
        try:
            lora_config(lora, model)
        except AdapterError as error:
            document = read_document(root / file)
            line = None if isinstance(document, list) else document.line(_KEY)
            reason = str(error).partition(": ")[2]
            found.append(ConfigProblem((root / file).as_posix(), line, ".".join(_KEY), reason))
    return found


def _model_config(experiment: Experiment, root: Path) -> "PreTrainedConfig | None":
    from alignslm.lm.formats import model_config
    from alignslm.training.next_unit import scratch_config, scratch_vocabulary

    if isinstance(experiment.lm, LlamaScratchConfig):
        return scratch_config(experiment.lm, scratch_vocabulary(1))
    source = experiment.lm.weights
    folder = root / source.expanded()[0] if isinstance(source, FolderSource) else root
    there = isinstance(source, FolderSource) and (folder / "config.json").is_file()
    return model_config(experiment.lm, folder) if there else None

"""Load models without a pipeline, from a folder, a Hub id or a config.

A `source` is a folder that the pipeline or an earlier call made, the Hub id of such a folder (`owner/name` or
`owner/name@revision`), or a config: a YAML file, the name of one that comes with the library, or its object. The models
of a config are prepared in `folder` (temporary if None); a `folder` that already exists is loaded as it is.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from alignslm.config.experiment import CONFIG_GROUPS
from alignslm.config.loading import CONFIG_TYPES, load_choice, parse_choice
from alignslm.config.model import Config
from alignslm.storage import replacing_folder, temporary_folder
from alignslm.template import template_folder

if TYPE_CHECKING:
    from alignslm.asr import ASRModel
    from alignslm.encoder import Encoder
    from alignslm.judge import Judge
    from alignslm.lm.checkpoint import UnitLM
    from alignslm.provenance import UnitContract
    from alignslm.vocoder import Vocoder

Source: TypeAlias = Path | str | Config
T = TypeVar("T")

SETTINGS = {"encoder": "encoder.json", "vocoder": "vocoder.json", "asr": "recogniser.json"}


class SourceError(ValueError):
    """A source is not a model, or does not say enough to be loaded."""


def load_encoder(source: Source, *, folder: Path | str | None = None, device: str = "auto") -> "Encoder":
    """Load a speech encoder, which turns waveforms at `encoder.contract.sample_rate_hz` into units."""
    from alignslm import encoder

    return _loaded(
        "encoder",
        source,
        folder,
        prepare=lambda config, place: encoder.prepare_encoder(config, (), place),
        load=lambda config, place: encoder.load_encoder(config, place, device=device),
    )


def load_vocoder(
    source: Source, *, contract: "UnitContract | None" = None, folder: Path | str | None = None, device: str = "auto"
) -> "Vocoder":
    """Load a vocoder. With a config, `contract` (`encoder.contract`) says which units it will be given."""
    from alignslm import vocoder

    return _loaded(
        "vocoder",
        source,
        folder,
        prepare=lambda config, place: vocoder.prepare_vocoder(config, (), _required(contract, source), place),
        load=lambda config, place: vocoder.load_vocoder(config, place, device=device),
    )


def load_asr(source: Source, *, folder: Path | str | None = None, device: str = "auto") -> "ASRModel":
    """Load an ASR model, which transcribes waveforms at `asr.sample_rate_hz`."""
    from alignslm import asr

    return _loaded(
        "asr",
        source,
        folder,
        prepare=lambda config, place: asr.prepare_asr(config, (), place),
        load=lambda config, place: asr.load_asr(config, place, device=device),
    )


def load_judge(
    config: Source,
    *,
    texts: Sequence[tuple[str, str]] = (),
    folder: Path | str | None = None,
    device: str = "auto",
    root: Path | str | None = None,
) -> "Judge":
    """Load the judge of a config. A judge that is fitted, such as ngram, is fitted on `texts` (prompt, continuation).

    A judge made by the pipeline is loaded from its config and `folder`. Rubrics are read from root/experiments/rubric,
    own code (kind python) from root/code; `root` is the experiment that a config file belongs to if None.
    """
    from alignslm import judge, own_code

    stories = [judge.JudgeInput(*text) for text in texts]
    path = _config_file("judge", config)
    experiment = Path(root) if root is not None else path.absolute().parents[2] if path else Path()
    places: dict[str, Path] = {"root": experiment, "code": experiment / own_code.FOLDER}
    return _loaded(
        "judge",
        config,
        folder,
        prepare=lambda config, place: judge.prepare_judge(config, stories, place, device=device, **places),
        load=lambda config, place: judge.load_judge(config, place, device=device),
    )


def load_lm(
    source: Source, *, contract: "UnitContract | None" = None, folder: Path | str | None = None, device: str = "auto"
) -> "UnitLM":
    """Load a unit language model.

    A checkpoint of this library says which units it speaks. The config of a published model (kind twist, slam or hf)
    needs the encoder's `contract`, and is imported as such a checkpoint.
    """
    from alignslm.lm import checkpoint, pretrained

    return _loaded(
        "lm",
        source,
        folder,
        prepare=lambda config, place: pretrained.import_lm(config, _required(contract, source), place),
        load=lambda _, place: checkpoint.load_lm(place, device=device),
    )


def read_config(group: str, source: Source) -> Any:
    """Return the config that a source is or names, of a group such as encoder or judge; None if it is neither.

    The group of trainers is `checkpoints`.
    """
    if isinstance(source, Config):
        return source
    path = _config_file(group, source)
    return load_choice(path, CONFIG_TYPES[group]) if path else None


def _config_file(group: str, source: Source) -> Path | None:
    """Return the YAML file that a source is, or the file of that name in the library's own experiments/."""
    if isinstance(source, Config):
        return None
    if Path(source).suffix in {".yaml", ".yml"}:
        return Path(source)
    known = template_folder() / "experiments" / CONFIG_GROUPS[group] / f"{source}.yaml"
    return known if known.is_file() and not Path(source).exists() else None


def _loaded(
    group: str,
    source: Source,
    folder: Path | str | None,
    *,
    prepare: Callable[[Any, Path], object],
    load: Callable[[Any, Path], T],
) -> T:
    config = read_config(group, source)
    if config is None:
        found = _folder(source)
        return load(None if group == "lm" else _config_in(group, found), found)
    if folder is None:
        with temporary_folder() as place:
            prepare(config, Path(place))
            return load(config, Path(place))
    if not Path(folder).is_dir():
        with replacing_folder(Path(folder)) as partial:
            prepare(config, partial)
    return load(config, Path(folder))


def _folder(source: Source) -> Path:
    from alignslm.generation.resolve import folder_or_repository

    found = folder_or_repository(str(source))
    if found is None:
        raise SourceError(f"{source} is not a folder, a config (file.yaml or a known name) or a Hub id (owner/name).")
    return found


def _config_in(group: str, folder: Path) -> Config:
    """Return the config that a prepared folder records. SourceError if it does not record its kind."""
    file = folder / SETTINGS.get(group, "")
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    config = settings.get("config", settings)
    if "kind" not in config:
        raise SourceError(
            f"{folder} does not say which kind of {group} it is. Pass its config file, and folder={str(folder)!r}."
        )
    return parse_choice(config, CONFIG_TYPES[group])


def _required(contract: "UnitContract | None", source: Source) -> "UnitContract":
    if contract is None:
        raise SourceError(f"{source} does not say which units it is for. Pass contract=encoder.contract.")
    return contract

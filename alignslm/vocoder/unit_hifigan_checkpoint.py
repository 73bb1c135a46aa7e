"""Published unit HiFi-GAN files: JSON settings, a torch file, lists of speakers and styles; checked, then folded."""

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from alignslm.config.problems import suggestion
from alignslm.config.sources import Source
from alignslm.config.unit_hifigan import generator_problems
from alignslm.fetching import Fetched, download
from alignslm.listing import text_lines
from alignslm.vocoder import VocoderError
from alignslm.vocoder.unit_hifigan_net import Shape, UnitHifiGan

GENERATOR = "generator"
NAMES_SHOWN = 5


def only_file(source: Source, pattern: str) -> Fetched:
    """Return the single file of a source: itself, or the only one that matches `pattern` in a folder or repository."""
    fetched = download(source, patterns=[pattern])
    if fetched.path.is_file():
        return fetched
    files = sorted(fetched.path.rglob(pattern))
    if len(files) != 1:
        names = ", ".join(str(file.relative_to(fetched.path)) for file in files)
        raise VocoderError(f"{fetched.path} has {len(files)} files like {pattern} ({names}); choose one of them")
    return Fetched(files[0], fetched.identity)


def read_shape(path: Path) -> Shape:
    """Read a settings file. Raises VocoderError for networks that need more than units, or of another architecture.

    `multispkr`, `multistyle`, `f0` and `embedder_params` are switches that any non-empty value turns on.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        for key, switch, default in (("num_speakers", "multispkr", 200), ("num_styles", "multistyle", 100)):
            settings[key] = settings.get(key, default) if settings.get(switch) else None
        shape = Shape.model_validate(settings)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise VocoderError(f"{path} is not a settings file of a unit HiFi-GAN: {faults}") from error
    except ValueError as error:
        raise VocoderError(
            f"{path} is not JSON: {error}. Is `settings` the JSON file, and `weights` the other?"
        ) from error
    if problems := list(_problems(settings, shape)):
        raise VocoderError(f"{path}: " + "; ".join(problems))
    return shape


def _problems(settings: dict[str, object], shape: Shape) -> Iterator[str]:
    """Yield why these settings cannot be used; other contradictions show when the weights are loaded."""
    if settings.get("f0"):
        yield (
            "the checkpoint needs a pitch contour (f0), which a unit language model does not generate; "
            "choose one trained without f0"
        )
    if settings.get("embedder_params"):
        yield (
            "the checkpoint needs the vector of a speaker embedder (embedder_params), which it does not include; "
            "choose one with a table of speakers (multispkr) or one speaker"
        )
    yield from generator_problems(
        shape.upsample_rates, shape.upsample_kernels, shape.block_kernels, shape.block_dilations
    )


def read_network(path: Path, shape: Shape) -> UnitHifiGan:
    """Read a torch file into a network. Raises VocoderError unless it has exactly the tensors of the settings."""
    folded = fold_weight_norm(_read_generator(path))
    state = {
        name: value.unsqueeze(2) if value.dim() == 3 and not name.startswith("dur_predictor.") else value
        for name, value in folded.items()
    }
    with torch.device("meta"):
        network = UnitHifiGan(shape)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        faults = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        raise VocoderError(
            f"{path} does not fit its settings: {' '.join(faults[:NAMES_SHOWN])} ({len(faults)} faults). "
            "`weights` and `settings` must be of one checkpoint."
        ) from error
    return network.eval()


def _read_generator(path: Path) -> Mapping[str, Tensor]:
    """Return the generator's tensors.

    A torch file is a pickle, and a pickle is a program: torch's restricted reader builds tensors and plain containers
    only. The hash in the configuration says moreover that these are the weights that were published.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise VocoderError(
            f"{path} is not a torch file of tensors only ({str(error).splitlines()[0]}). Nothing else is read, for "
            "unpickling could run any program. Is it the checkpoint, whole, and not a page that was downloaded?"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get(GENERATOR), dict):
        found = (
            ", ".join(map(str, list(content)[:NAMES_SHOWN])) if isinstance(content, dict) else type(content).__name__
        )
        raise VocoderError(f"{path} has no {GENERATOR!r} entry (found: {found}); it is not a unit HiFi-GAN checkpoint")
    return content[GENERATOR]


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights for weight-normalised ones: g v / |v|, the norm over all axes but the first.

    Reads torch's older names (weight_g, weight_v) and its newer; other weights only become float32.
    """
    folded = {}
    for name, value in state.items():
        for scale, direction in WEIGHT_NORM_NAMES:
            if name.endswith(direction):
                stem = name.removesuffix(direction)
                norms = value.double().flatten(1).norm(dim=1).view(-1, *[1] * (value.dim() - 1))
                folded[f"{stem}weight"] = (value * (state[f"{stem}{scale}"] / norms)).float()
            if name.endswith((scale, direction)):
                break
        else:
            folded[name] = value.float()
    return folded


WEIGHT_NORM_NAMES = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def read_names(path: Path) -> list[str]:
    """Read one name per line. Names are numbered by their lines, as textless does: an empty line takes a number."""
    names = [line.strip() for line in text_lines(path)]
    return names[: max((number for number, name in enumerate(names, 1) if name), default=0)]


def resolve_speaker(
    key: str, wanted: str | int | None, *, count: int | None, names: Sequence[str] | None
) -> int | None:
    """Return the number of a speaker or style, None if the checkpoint has only one.

    `count` is None in such a checkpoint; `names` is None without a list. VocoderError names the valid ones.
    """
    if count is None:
        if wanted is not None:
            raise VocoderError(f"{key} is {wanted!r}, but the checkpoint has only one {key}: set {key}: null")
        return None
    if names is not None and len(names) > count:
        raise VocoderError(f"{len(names)} {key} names are listed, but the checkpoint has {count}")
    known = list(names or ())
    numbers = f"give a number in [0, {count}), or in `{key}s` the list of their names"
    listed = f"{key}s: {', '.join(filter(None, known))}" if known else numbers
    if wanted is None:
        raise VocoderError(f"the checkpoint has {count} {key}s and no default: set {key}; {listed}")
    if isinstance(wanted, int):
        if not 0 <= wanted < count:
            raise VocoderError(f"{key} {wanted} is outside [0, {count}); {listed}")
        return wanted
    if not wanted or wanted not in known:
        hint = suggestion(wanted, [name for name in known if name], label=f"{key}s") if known else f"; {listed}"
        raise VocoderError(f"no {key} {wanted!r} in the checkpoint{hint}")
    return known.index(wanted)

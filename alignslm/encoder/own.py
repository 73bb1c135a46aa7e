"""A user's own encoder, with its output checked."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from alignslm.config.own_code import PythonEncoderConfig
from alignslm.encoder import Encoded
from alignslm.own_code import OwnObject, check_batches, load_own
from alignslm.provenance import UnitContract, content_id, tree_sha256
from alignslm.storage import write_text

CONFIG_FILE = "encoder.json"


class OwnEncoder:
    """Calls the object's `encode` and checks its units. `contract` names the code, its options and its fitted files."""

    def __init__(self, config: PythonEncoderConfig, model: OwnObject, folder: Path) -> None:
        self.model = model
        self.contract = UnitContract(
            encoder=f"python {config.object}",
            revision=content_id(config.options),
            sample_rate_hz=config.sample_rate_hz,
            frame_rate_hz=config.frame_rate_hz,
            layer=None,
            padding="own",
            codebook_sha256=tree_sha256([folder]),
            num_units=config.num_units,
            deduplicated=True,
        )

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Encoded]:
        """Return units and durations of each waveform. Raises OwnCodeError if they are not deduplicated units."""
        found = self.model.results(waveforms)
        for row, one in enumerate(found):
            if problem := self._problem(one):
                raise self.model.error(f"encode returned for waveform {row}: {problem}")
        return [Encoded(*(np.asarray(part, np.uint16) for part in one)) for one in found]

    def _problem(self, found: object) -> str | None:
        if not isinstance(found, Encoded):
            return f"a {type(found).__name__}, expected Encoded of alignslm.encoder"
        units, durations = (np.asarray(part) for part in found)
        if units.ndim != 1 or units.shape != durations.shape:
            return f"units {units.shape} and durations {durations.shape}, expected one duration per unit"
        if units.size and not 0 <= units.min() <= units.max() < self.contract.num_units:
            return f"units {units.min()}..{units.max()}, expected 0..{self.contract.num_units - 1} (num_units)"
        if (units[1:] == units[:-1]).any() or (durations < 1).any():
            return "repeated units or empty durations; `alignslm.units.deduplicate` turns frames into both"
        return None


def prepare(
    config: PythonEncoderConfig, waveforms: Iterable[np.ndarray], folder: Path, *, code: Path, device: str
) -> None:
    """Fit the encoder on `fit_utterances` waveforms if it can be fitted, and try it on the first three."""
    model = OwnObject(config, code / f"{config.module}.py", method="encode")
    used = list(islice(waveforms, config.fit_utterances))
    model.prepare(used, folder, device=device)
    write_text(folder / CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    check_batches(model, OwnEncoder(config, model, folder).encode, used[:3])


def load(config: PythonEncoderConfig, folder: Path, *, device: str) -> OwnEncoder:
    """Load what `prepare` left in `folder`."""
    return OwnEncoder(config, load_own(config, folder, method="encode", device=device), folder)

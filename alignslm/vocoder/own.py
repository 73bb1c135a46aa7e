"""A user's own vocoder, with its output checked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignslm.config.own_code import PythonVocoderConfig
from alignslm.own_code import OwnObject, check_batches, load_own
from alignslm.provenance import UnitContract
from alignslm.storage import write_text
from alignslm.vocoder import VocoderExample, check_units

CONTRACT_FILE = "unit_contract.json"


class OwnVocoder:
    """Calls the object's `synthesize` and checks its waveforms. No units give no samples, without a call."""

    def __init__(self, config: PythonVocoderConfig, model: OwnObject, contract: UnitContract) -> None:
        self.model, self.contract, self.sample_rate_hz = model, contract, config.sample_rate_hz

    def synthesize(self, units: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return one waveform (samples,) per unit sequence. Raises OwnCodeError if one is not finite mono float32."""
        for row, some in enumerate(units):
            check_units(some, self.contract, row)
        spoken = [row for row, some in enumerate(units) if len(some)]
        waveforms = dict(zip(spoken, self.model.results([units[row] for row in spoken]), strict=True))
        for row, waveform in waveforms.items():
            form = (type(waveform).__name__, getattr(waveform, "dtype", None), getattr(waveform, "ndim", None))
            if form != ("ndarray", np.float32, 1) or not waveform.size or not np.isfinite(waveform).all():
                raise self.model.error(
                    f"synthesize returned {form} for row {row}, expected a float32 array (samples,) of finite numbers"
                )
        return [waveforms.get(row, np.zeros(0, np.float32)) for row in range(len(units))]


def prepare(
    config: PythonVocoderConfig,
    utterances: Sequence[VocoderExample],
    contract: UnitContract,
    folder: Path,
    *,
    code: Path,
    device: str,
) -> dict[str, float]:
    """Fit the vocoder on the utterances if it can be fitted, and try it on the units of the first three."""
    model = OwnObject(config, code / f"{config.module}.py", method="synthesize")
    figures = model.prepare(utterances, folder, device=device)
    write_text(folder / CONTRACT_FILE, contract.model_dump_json(indent=1) + "\n")
    check_batches(model, OwnVocoder(config, model, contract).synthesize, [row.units.tolist() for row in utterances[:3]])
    return figures


def load(config: PythonVocoderConfig, folder: Path, *, device: str) -> OwnVocoder:
    """Load what `prepare` left in `folder`."""
    model = load_own(config, folder, method="synthesize", device=device)
    contract = UnitContract.model_validate_json((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    return OwnVocoder(config, model, contract)

"""A user's own ASR model, with its output checked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignslm.asr import Transcript
from alignslm.config.own_code import PythonASRConfig
from alignslm.own_code import OwnObject, check_batches, load_own


class OwnASR:
    """Calls the object's `transcribe` and checks its transcripts."""

    def __init__(self, config: PythonASRConfig, model: OwnObject) -> None:
        self.model, self.sample_rate_hz = model, config.sample_rate_hz

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Return one transcript per waveform. Raises OwnCodeError if one is not a Transcript, or contradicts itself."""
        found = self.model.results(waveforms)
        for row, one in enumerate(found):
            if not isinstance(one, Transcript):
                raise self.model.error(f"transcribe returned {one!r} for row {row}, expected a Transcript")
            if one.status not in {"ok", "empty", "failed"} or bool(one.text) != (one.status == "ok"):
                raise self.model.error(
                    f"transcribe returned status {one.status!r} with text {one.text!r} for row {row}: status is ok "
                    "(with a text), empty or failed (with None)"
                )
        return found


def prepare(
    config: PythonASRConfig, spoken: Sequence[tuple[np.ndarray, str]], folder: Path, *, code: Path, device: str
) -> dict[str, float]:
    """Fit the ASR model on (waveform, text) if it can be fitted, and try it on the first three waveforms."""
    model = OwnObject(config, code / f"{config.module}.py", method="transcribe")
    figures = model.prepare(spoken, folder, device=device)
    check_batches(model, OwnASR(config, model).transcribe, [waveform for waveform, _ in spoken[:3]])
    return figures


def load(config: PythonASRConfig, folder: Path, *, device: str) -> OwnASR:
    """Load what `prepare` left in `folder`."""
    return OwnASR(config, load_own(config, folder, method="transcribe", device=device))

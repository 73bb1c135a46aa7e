"""DNSMOS through onnxruntime: the networks of the wheel `speechmos` under their published preparation of the sound.

The wheel's own module is not imported: it requires librosa, pandas and requests. Its
preprocessing of a waveform is repeated here, and compared with it in the tests.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from alignslm.audio import frames_of, hann
from alignslm.config.mos import DNSMOSConfig
from alignslm.mos import MosError, MOSPrediction, invalid_prediction
from alignslm.mos.source import read_identity, write_source
from alignslm.provenance import file_sha256
from alignslm.threads import thread_map

SAMPLE_RATE_HZ = 16000
SEGMENT_S = 9.01
SEGMENT_SAMPLES = 144160
WINDOW_SAMPLES = 321
HOP_SAMPLES = 160
NUM_MELS = 120
DECIMALS = 4  # of a stored score: far below meaningful differences, far above single precision

FILES = {
    "p808": ("dnsmos_models/model_v8.onnx", "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91"),
    "p835": ("dnsmos_models/sig_bak_ovr.onnx", "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"),
    "p835-personalised": (
        "pdnsmos_models/sig_bak_ovr.onnx",
        "9e3a197449ca2177f0997afec3bd6b890117ce2f17b89d6eea7fa0d47272c81c",
    ),
}
# Highest power first, in the networks' order signal, background, overall: raw outputs to the scale of ITU-T P.835.
CURVES = {
    False: (
        (-0.08397278, 1.22083953, 0.0052439),
        (-0.13166888, 1.60915514, -0.39604546),
        (-0.06766283, 1.11546468, 0.04602535),
    ),
    True: (
        (-0.01019296, 0.02751166, 1.19576786, -0.24348726),
        (-0.04976499, 0.44276479, -0.1644611, 0.96883132),
        (-0.00533021, 0.005101, 1.18058466, -0.11236046),
    ),
}


def prepare(config: DNSMOSConfig, folder: Path) -> None:
    """Verify the installed networks and write down which they are."""
    write_source(config, _identity(config), folder)


def _networks(config: DNSMOSConfig) -> tuple[str, str]:
    return "p808", "p835-personalised" if config.personalized else "p835"


def _identity(config: DNSMOSConfig) -> str:
    return " ".join(f"sha256:{file_sha256(network_file(name))}" for name in _networks(config))


def network_file(name: str) -> Path:
    """Return the path of a network in the installed wheel. Raises MosError if it is missing or another one."""
    found = importlib.util.find_spec("speechmos")
    if found is None or found.origin is None:
        raise MosError("the package speechmos, which contains DNSMOS, is not installed: pip install speechmos==0.0.1.1")
    relative, expected = FILES[name]
    path = Path(found.origin).parent / relative
    if not path.exists() or (actual := file_sha256(path)) != expected:
        state = f"has SHA-256 {actual}" if path.exists() else "does not exist"
        raise MosError(
            f"{path} {state}, expected {expected}: not the DNSMOS of speechmos 0.0.1.1, so scores would not be "
            "comparable. pip install --force-reinstall speechmos==0.0.1.1"
        )
    return path


def tiled(waveform: np.ndarray) -> np.ndarray:
    """Repeat a waveform by doubling until it fills a segment."""
    while len(waveform) < SEGMENT_SAMPLES:
        waveform = np.concatenate([waveform, waveform])
    return waveform


def segments_of(waveform: np.ndarray) -> list[np.ndarray]:
    """Cut windows of SEGMENT_SAMPLES, one second apart, as the published code does.

    It rounds the length down to whole seconds first, and loses a window wherever (second + 9.01) * 16000 falls a hair
    short of a whole number in floating point, as for the eighth. Scores are only comparable if they are lost here too.
    """
    sound = tiled(waveform)
    seconds = range(max(1, len(sound) // SAMPLE_RATE_HZ - 9))
    ends = [int((second + SEGMENT_S) * SAMPLE_RATE_HZ) for second in seconds]
    windows = [sound[second * SAMPLE_RATE_HZ : end] for second, end in zip(seconds, ends, strict=True)]
    return [window for window in windows if len(window) == SEGMENT_SAMPLES]


@cache
def _slaney_bank() -> np.ndarray:
    """Return (bins, mels): triangles of unit area, linear below 1 kHz and logarithmic above (Slaney, 1998)."""
    log_step = np.log(6.4) / 27
    mels = np.linspace(0, 15 + np.log(SAMPLE_RATE_HZ / 2 / 1000) / log_step, NUM_MELS + 2)
    edges_hz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (mels - 15)))
    bins_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)[:, None]
    low, peak, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    triangles = np.minimum((bins_hz - low) / (peak - low), (high - bins_hz) / (high - peak)).clip(0)
    return (triangles * 2 / (high - low)).astype(np.float32)


def mel_decibels(segment: np.ndarray) -> np.ndarray:
    """Return (900, 120) float32: mel power in dB below the segment's loudest, (dB + 40) / 40, no lower than -1.

    The segment's last 10 ms are left out. Silence is 1 throughout: it is its own loudest.
    """
    sound = segment[:-HOP_SAMPLES].astype(np.float32)
    frames = frames_of(sound, window_samples=WINDOW_SAMPLES, hop_samples=HOP_SAMPLES, centre=True)
    spectrum = scipy.fft.rfft(frames * hann(WINDOW_SAMPLES), axis=1)
    power = (np.abs(spectrum) ** 2) @ _slaney_bank()
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    decibels -= decibels.max()
    return ((np.maximum(decibels, -80) + 40) / 40).astype(np.float32)


class DnsmosPredictor:
    """Rates each clip separately on one thread, so that a score depends only on the clip; clips in parallel."""

    sample_rate_hz = SAMPLE_RATE_HZ
    metrics: tuple[str, ...] = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")

    def __init__(self, config: DNSMOSConfig, folder: Path, *, workers: int) -> None:
        """Load the networks. MosError unless `folder` was prepared with them."""
        if read_identity(config, folder) != _identity(config):
            raise MosError(f"{folder}: the networks differ from those it was prepared with. Run `dvc repro mos`.")
        self._p808, self._p835 = (_session(network_file(name)) for name in _networks(config))
        self._config = config
        self._workers = workers

    def predict(self, waveforms: Sequence[np.ndarray]) -> list[MOSPrediction]:
        """Return overall, signal, background and P.808 scores; samples beyond [-1, 1] are clipped."""
        return thread_map(self._rate, waveforms, threads=self._workers)

    def _rate(self, waveform: np.ndarray) -> MOSPrediction:
        if (nothing := invalid_prediction(waveform)) is not None:
            return nothing
        segments = segments_of(waveform.clip(-1, 1).astype(np.float32))
        heard = segments if self._config.segments == "all" else segments[:1]
        means = np.mean([self._segment(segment) for segment in heard], axis=0)
        return MOSPrediction("ok", tuple(round(float(value), DECIMALS) for value in means))

    def _segment(self, segment: np.ndarray) -> tuple[float, ...]:
        raw = self._p835.run(None, {"input_1": segment[None]})[0][0]
        signal, background, overall = (
            float(np.polyval(curve, float(value)))
            for curve, value in zip(CURVES[self._config.personalized], raw, strict=True)
        )
        p808 = float(self._p808.run(None, {"input_1": mel_decibels(segment)[None]})[0][0][0])
        return overall, signal, background, p808


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

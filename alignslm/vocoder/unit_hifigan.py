"""The paper's vocoder: a published unit HiFi-GAN, batched (paper, section 3, step 3)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignslm.config.model import Config
from alignslm.config.unit_hifigan import UnitHiFiGANConfig
from alignslm.convnet import map_rows
from alignslm.device import exact_float32, resolve_device
from alignslm.integrity import read_json
from alignslm.provenance import UnitContract
from alignslm.storage import atomic_write, write_text
from alignslm.units import expand
from alignslm.vocoder import VocoderError, check_units
from alignslm.vocoder.unit_hifigan_checkpoint import only_file, read_names, read_network, read_shape, resolve_speaker
from alignslm.vocoder.unit_hifigan_net import Shape, UnitHifiGan, to_channels_last

MODEL_FILE = "model.safetensors"
VOICE_FILE = "vocoder.json"
BATCH_UNITS = 1 << 14  # padding included, of one call to the duration predictor
BATCH_SAMPLES = 1 << 23  # padding included, on a GPU: about 4 GB at the published width
MAX_UNIT_FRAMES = 1 << 12  # nearly three minutes for one unit at 25 Hz: not speech


class Voice(Config):
    """The settings of an artifact; `sources` has the content hash of each part's origin."""

    contract: UnitContract
    shape: Shape
    speaker: int | None
    style: int | None
    sources: dict[str, str]


def fetch(config: UnitHiFiGANConfig, contract: UnitContract, folder: Path) -> dict[str, float]:
    """Fetch a checkpoint, check it against the unit contract, and leave its weights, folded, in `folder`.

    From then on nothing is unpickled and no network is needed. Returns the size for the log.
    """
    settings = only_file(config.settings, "*.json")
    shape = read_shape(settings.path)
    _require_fit(config, shape, contract, settings.path)
    identities = {"settings": settings.identity}
    chosen = {}
    for key, wanted, count, source in (
        ("speaker", config.speaker, shape.num_speakers, config.speakers),
        ("style", config.style, shape.num_styles, config.styles),
    ):
        names = only_file(source, f"{key}s.txt") if source else None
        chosen[key] = resolve_speaker(key, wanted, count=count, names=read_names(names.path) if names else None)
        if names:
            identities[f"{key}s"] = names.identity
    weights = only_file(config.weights, "*.pt")
    network = read_network(weights.path, shape)
    identities["weights"] = weights.identity
    voice = Voice(contract=contract, shape=shape, sources=identities, **chosen)
    save_voice(voice, network, folder)
    return {"million_parameters": sum(value.numel() for value in network.parameters()) / 1e6}


def save_voice(voice: Voice, network: UnitHifiGan, folder: Path) -> None:
    """Write what `UnitHifiganVocoder.load` reads; convolutions have plain weights, without normalisation."""
    with atomic_write(folder / MODEL_FILE) as partial:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, partial)
    text = json.dumps(voice.model_dump(mode="json"), indent=2, sort_keys=True)
    write_text(folder / VOICE_FILE, text + "\n")


def _require_fit(config: UnitHiFiGANConfig, shape: Shape, contract: UnitContract, path: Path) -> None:
    """Raise VocoderError listing every reason why the checkpoint does not fit units of this contract."""
    rate_hz = shape.sample_rate_hz / shape.samples_per_frame
    faults = []
    if shape.num_units != contract.num_units:
        faults.append(f"it has {shape.num_units} units, the encoder {contract.encoder} has {contract.num_units}")
    if rate_hz != contract.frame_rate_hz:
        faults.append(
            f"it has {rate_hz:g} units/s ({shape.sample_rate_hz} Hz, {shape.samples_per_frame} samples per unit), "
            f"the encoder has {contract.frame_rate_hz:g} units/s"
        )
    if config.layer is not None and config.layer != contract.layer:
        faults.append(f"it was trained on units of layer {config.layer}, the encoder's are of layer {contract.layer}")
    if shape.sample_rate_hz != config.sample_rate_hz:
        faults.append(f"it synthesizes {shape.sample_rate_hz} Hz, but sample_rate_hz is {config.sample_rate_hz}")
    if contract.deduplicated and shape.duration_dim is None:
        faults.append(
            "it has no duration predictor and the units are deduplicated: every unit would last one frame, "
            "and the speech come out several times too fast. Choose a checkpoint with dur_predictor_params"
        )
    if faults:
        raise VocoderError(f"the vocoder of {path} does not fit the units: " + "; ".join(faults))


def batches(lengths: Sequence[int], *, most: int) -> Iterator[list[int]]:
    """Yield row numbers, shortest row first, so that rows times the longest of a batch stays within `most`.

    A longer row is its own batch; rows of length 0 are skipped.
    """
    batch: list[int] = []
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class UnitHifiganVocoder:
    """Synthesizes unit sequences: float32 mono of whole unit frames.

    A GPU takes batches padded to their longest row; each row's samples are then the same as alone, within the
    rounding of `dtype` (float32: 1e-4 at most). A CPU is as fast with single rows, so there they are exactly equal.
    Durations are computed in float64 whatever the dtype.
    """

    def __init__(
        self, voice: Voice, network: UnitHifiGan, *, device: str, batch_samples: int | None, dtype: str = "float32"
    ) -> None:
        """Take a network; `batch_samples` bounds a batch, padding included, and None synthesizes single rows."""
        self.contract = voice.contract
        self.sample_rate_hz = voice.shape.sample_rate_hz
        self._voice = voice
        self._batch_samples = batch_samples
        self._device = torch.device(device)
        if self._device.type == "cpu":
            to_channels_last(network)
        self._network = network.eval().to(self._device)
        self._network.convert(getattr(torch, dtype))
        if self._network.dur_predictor is not None:
            self._network.dur_predictor.double()  # so that no batch can round a duration the other way

    @classmethod
    def load(cls, folder: Path, *, device: str, dtype: str = "float32") -> Self:
        """Load what `fetch` left in `folder`; DamagedError if nothing is there."""
        voice = read_json(folder / VOICE_FILE, Voice)
        with torch.device("meta"):
            network = UnitHifiGan(voice.shape)
        network.load_state_dict(load_file(folder / MODEL_FILE), assign=True)
        device = resolve_device(device)
        batch_samples = None if device == "cpu" else BATCH_SAMPLES
        return cls(voice, network, device=device, batch_samples=batch_samples, dtype=dtype)

    def synthesize(self, units: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return one waveform (samples,) a unit sequence; no units give no samples.

        VocoderError if a unit is outside the contract's codebook.
        """
        for index, row in enumerate(units):
            check_units(row, self.contract, index)
        spoken = [np.zeros(0, np.float32)] * len(units)
        with torch.inference_mode(), exact_float32():
            frames = [expand(row, lasting) for row, lasting in zip(units, self.durations(units), strict=True)]
            for numbers, waveforms in self._batches_spoken(frames):
                for number, waveform in zip(numbers, waveforms, strict=True):
                    spoken[number] = waveform
        return spoken

    def durations(self, units: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return how many frames each unit of each row lasts: as predicted, or one if units are not deduplicated."""
        lasting = [np.ones(len(row), np.int64) for row in units]
        if not self.contract.deduplicated:
            return lasting
        with torch.inference_mode():
            for rows in batches([len(row) for row in units], most=BATCH_UNITS):
                padded, lengths = self._padded([units[row] for row in rows])
                predicted = self._network.durations(padded, lengths).cpu().numpy()
                for row, values, length in zip(rows, predicted, lengths, strict=True):
                    lasting[row] = _whole_frames(values[:length], row)
        return lasting

    def _batches_spoken(self, frames: Sequence[np.ndarray]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        lengths = [len(row) for row in frames]
        if self._batch_samples is None:
            rows = [row for row, length in enumerate(lengths) if length]
            yield rows, map_rows(lambda row: self._speak([frames[row]])[0], rows)
            return
        for batch in batches(lengths, most=self._batch_samples // self._voice.shape.samples_per_frame):
            yield batch, self._speak([frames[row] for row in batch])

    def _speak(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        padded, lengths = self._padded(frames)
        samples, ends = self._network(padded, lengths, self._voice.speaker, self._voice.style)
        if not samples.isfinite().all():
            raise VocoderError(
                "the vocoder gives samples that are not numbers: its weights are damaged, or too large for dtype: "
                "float16 (experiments/vocoder); write float32 there"
            )
        return [row[:end].copy() for row, end in zip(samples.cpu().numpy(), ends, strict=True)]

    def _padded(self, rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[Tensor, list[int]]:
        tensors = [torch.from_numpy(np.asarray(row, np.int64)) for row in rows]
        return nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(self._device), [len(row) for row in rows]


def _whole_frames(values: np.ndarray, row: int) -> np.ndarray:
    if not (values <= MAX_UNIT_FRAMES).all():  # catches NaN too
        raise VocoderError(
            f"sequence {row}: a unit is predicted to last {values.max():g} frames; the checkpoint is damaged, "
            "or was trained on other units"
        )
    return values.astype(np.int64)

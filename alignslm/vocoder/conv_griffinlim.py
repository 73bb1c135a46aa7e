"""A vocoder that fits in seconds: convolutions from units to durations and log-mel frames, then Griffin-Lim."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from alignslm.audio import fft_size, log_mel
from alignslm.config.speech import ConvGriffinLimConfig
from alignslm.convnet import ConvStack, batches, length_mask, map_rows, seeded, standardize, train
from alignslm.provenance import UnitContract
from alignslm.storage import atomic_write, write_text
from alignslm.threads import thread_map
from alignslm.units import expand
from alignslm.vocoder import VocoderError, VocoderExample, check_examples, check_units
from alignslm.vocoder.griffin_lim import griffin_lim, magnitude_of, pulse_phase

KERNEL_SIZE = 3
DURATION_LAYERS = 2


class UnitToMel(nn.Module):
    """Units to durations in frames, and units repeated for their durations to log-mel frames."""

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, config: ConvGriffinLimConfig, *, num_units: int, mels_per_frame: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_units, config.channels)
        self.duration_stack = ConvStack(channels=config.channels, layers=DURATION_LAYERS, kernel_size=KERNEL_SIZE)
        self.duration_head = nn.Conv1d(config.channels, 1, 1)
        self.mel_stack = ConvStack(channels=config.channels, layers=config.layers, kernel_size=KERNEL_SIZE)
        self.mel_head = nn.Conv1d(config.channels, mels_per_frame * config.num_mels, 1)
        self.register_buffer("mel_mean", torch.zeros(config.num_mels))
        self.register_buffer("mel_std", torch.ones(config.num_mels))

    def _embedded(self, units: Tensor, mask: Tensor | None) -> Tensor:
        hidden = self.embed(units).transpose(1, 2)
        return hidden if mask is None else hidden * mask

    def log_durations(self, units: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ln(frames) (batch, units) for deduplicated units (batch, units)."""
        return self.duration_head(self.duration_stack(self._embedded(units, mask), mask))[:, 0].float()

    def normal_mel(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return standardised log-mel (batch, frames * mels_per_frame, num_mels) for repeated units (batch, frames)."""
        packed = self.mel_head(self.mel_stack(self._embedded(frames, mask), mask)).float()
        return packed.transpose(1, 2).reshape(len(frames), -1, len(self.mel_mean))

    def mel(self, frames: Tensor) -> Tensor:
        """Return natural log-mel power, shaped like `normal_mel`."""
        return self.normal_mel(frames) * self.mel_std + self.mel_mean


def mels_per_frame(config: ConvGriffinLimConfig, contract: UnitContract) -> int:
    """Return how many mel frames one unit frame lasts; VocoderError unless it is a whole number."""
    ratio = config.sample_rate_hz / (config.hop_samples * contract.frame_rate_hz)
    if ratio < 1 or ratio != round(ratio):
        raise VocoderError(
            f"a unit lasts {ratio:g} mel frames ({config.sample_rate_hz} Hz, hop_samples {config.hop_samples}, "
            f"{contract.frame_rate_hz:g} units/s); choose hop_samples in the vocoder's YAML so that it is whole"
        )
    return round(ratio)


def _mel_of(config: ConvGriffinLimConfig, row: VocoderExample, num_mel_frames: int) -> np.ndarray:
    """Return log-mel (num_mel_frames, num_mels): cut, or its last frame repeated, to the length the units have."""
    mel = log_mel(
        row.waveform,
        sample_rate_hz=config.sample_rate_hz,
        num_mels=config.num_mels,
        window_samples=config.window_samples,
        hop_samples=config.hop_samples,
    )[:num_mel_frames]
    return np.pad(mel, ((0, num_mel_frames - len(mel)), (0, 0)), mode="edge")


def _padded(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    tensors = [torch.from_numpy(row) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), length_mask(lengths, int(lengths.max()))


def fit(
    config: ConvGriffinLimConfig, utterances: Sequence[VocoderExample], contract: UnitContract, folder: Path
) -> dict[str, float]:
    """Train on `utterances` and leave model and settings in `folder`; return the mean losses of the last tenth.

    `mel_loss` is the mean absolute error in standard deviations of log-mel, `duration_loss` the mean squared error
    of ln(frames). Deterministic on one machine. VocoderError if the utterances do not fit the contract.
    """
    ratio = mels_per_frame(config, contract)
    check_examples(utterances, contract, sample_rate_hz=config.sample_rate_hz)
    units = [np.asarray(row.units, np.int64) for row in utterances]
    log_durations = [np.log(np.asarray(row.durations, np.float32)) for row in utterances]
    frames = [expand(row.units, row.durations).astype(np.int64) for row in utterances]
    lengths = [ratio * len(repeated) for repeated in frames]
    mels = thread_map(lambda row: _mel_of(config, *row), zip(utterances, lengths, strict=True))
    normal, mean, std = standardize(mels)
    parts: list[tuple[float, float]] = []

    with seeded(config.seed):
        model = UnitToMel(config, num_units=contract.num_units, mels_per_frame=ratio)
        model.mel_mean.copy_(torch.from_numpy(mean))
        model.mel_std.copy_(torch.from_numpy(std))

        def loss_of(batch: list[int]) -> Tensor:
            mel_loss = _mel_loss(model, [frames[i] for i in batch], [normal[i] for i in batch])
            duration_loss = _duration_loss(model, [units[i] for i in batch], [log_durations[i] for i in batch])
            parts.append((float(mel_loss.detach()), float(duration_loss.detach())))
            return mel_loss + duration_loss

        order = batches(len(units), batch_size=config.batch_size, steps=config.steps, seed=config.seed)
        train(model, loss_of, order, steps=config.steps, peak_rate=config.learning_rate)
    _save(model, config, contract, folder)
    mel_loss, duration_loss = np.mean(parts[-max(1, config.steps // 10) :], axis=0)
    return {"mel_loss": float(mel_loss), "duration_loss": float(duration_loss)}


def _mel_loss(model: UnitToMel, frames: Sequence[np.ndarray], mels: Sequence[np.ndarray]) -> Tensor:
    inputs, mask = _padded(frames)
    targets, mel_mask = _padded(mels)
    error = F.l1_loss(model.normal_mel(inputs, mask), targets, reduction="none").mean(dim=2)
    return (error * mel_mask[:, 0]).sum() / mel_mask.sum()


def _duration_loss(model: UnitToMel, units: Sequence[np.ndarray], log_durations: Sequence[np.ndarray]) -> Tensor:
    inputs, mask = _padded(units)
    targets, _ = _padded(log_durations)
    error = (model.log_durations(inputs, mask) - targets) ** 2
    return (error * mask[:, 0]).sum() / mask.sum()


def _save(model: UnitToMel, config: ConvGriffinLimConfig, contract: UnitContract, folder: Path) -> None:
    with atomic_write(folder / "model.safetensors") as partial:
        save_file(model.state_dict(), partial)
    settings = {"config": config.model_dump(mode="json"), "contract": contract.model_dump(mode="json")}
    write_text(folder / "vocoder.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")


class ConvGriffinLimVocoder:
    """Synthesizes deduplicated units: float32 mono of whole unit frames. Each sequence is synthesized separately."""

    def __init__(self, config: ConvGriffinLimConfig, contract: UnitContract, model: UnitToMel) -> None:
        self.contract = contract
        self.sample_rate_hz = config.sample_rate_hz
        self._config = config
        self._model = model.eval()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load what `fit` left in `folder`; VocoderError if nothing is there."""
        try:
            settings = json.loads((folder / "vocoder.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise VocoderError(f"{folder} has no vocoder (vocoder.json). Run `dvc repro vocoder`.") from error
        config = ConvGriffinLimConfig.model_validate(settings["config"])
        contract = UnitContract.model_validate(settings["contract"])
        ratio = mels_per_frame(config, contract)
        model = UnitToMel(config, num_units=contract.num_units, mels_per_frame=ratio)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(config, contract, model)

    def synthesize(self, units: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return one waveform per unit sequence, (frames * samples per frame,); no units give no samples.

        VocoderError if a unit is outside the contract's codebook.
        """
        for index, row in enumerate(units):
            check_units(row, self.contract, index)
        return map_rows(self._speak, units)

    def durations(self, units: Sequence[int]) -> np.ndarray:
        """Return how many frames each unit would last, at least one."""
        predicted = self._model.log_durations(torch.tensor(units)[None])[0]
        return predicted.exp().round().clamp_min(1).long().detach().numpy()

    def _speak(self, units: Sequence[int]) -> np.ndarray:
        if not len(units):
            return np.zeros(0, np.float32)
        frames = torch.from_numpy(expand(units, self.durations(units)).astype(np.int64))
        mel = self._model.mel(frames[None])[0]
        size = fft_size(self._config.window_samples)
        options = {
            "window_samples": self._config.window_samples,
            "hop_samples": self._config.hop_samples,
            "fft_samples": size,
        }
        magnitude = magnitude_of(mel, sample_rate_hz=self.sample_rate_hz, num_bins=size // 2 + 1)
        phase = pulse_phase(len(mel), sample_rate_hz=self.sample_rate_hz, **options)
        return griffin_lim(magnitude, phase, iterations=self._config.griffin_lim_iterations, **options).numpy()

"""Trains a unit HiFi-GAN on a corpus's own units and speech (Kong et al., 2020, sections 2.4 and 3).

The losses are HiFi-GAN's: adversarial, feature matching times 2, log-mel times 45; plus the duration predictor's
squared error of ln(frames + 1) (Lee et al., 2022). `unit_hifigan` loads the resulting folder.
"""

import pickle
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from alignslm.audio import LOG_FLOOR, fft_size, mel_filterbank
from alignslm.config.unit_hifigan import ScratchUnitHiFiGANConfig
from alignslm.convnet import DivergedError, batches, seeded
from alignslm.device import exact_float32, resolve_device
from alignslm.progress import track
from alignslm.provenance import UnitContract
from alignslm.storage import atomic_write, write_text
from alignslm.units import expand
from alignslm.vocoder import VocoderError, VocoderExample, check_examples
from alignslm.vocoder.hifigan_discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from alignslm.vocoder.unit_hifigan import Voice, save_voice
from alignslm.vocoder.unit_hifigan_net import PaddingMask, Shape, UnitHifiGan

FEATURE_WEIGHT, MEL_WEIGHT = 2.0, 45.0
BETAS = (0.8, 0.99)
LOSSES = ("mel_loss", "duration_loss", "generator_loss", "discriminator_loss")
CHECKPOINT = "training.pt"
LOG_FILE = "training.csv"
SPEAKERS_FILE = "speakers.txt"


class Segments(NamedTuple):
    """A batch: repeated units (batch, frames), their samples (batch, samples), and speaker numbers (batch,)."""

    frames: Tensor
    samples: Tensor
    speakers: Tensor


class LogMel(nn.Module):
    """Natural log-mel magnitudes (batch, mels, frames) of waveforms (batch, samples), not centred."""

    window: Tensor
    bank: Tensor

    def __init__(self, config: ScratchUnitHiFiGANConfig) -> None:
        super().__init__()
        self.hop, self.size = config.hop_samples, fft_size(config.window_samples)
        bank = mel_filterbank(
            sample_rate_hz=config.sample_rate_hz, num_mels=config.num_mels, num_bins=self.size // 2 + 1
        )
        self.register_buffer("window", torch.hann_window(config.window_samples), persistent=False)
        self.register_buffer("bank", torch.from_numpy(bank.copy()), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the log-mel magnitudes."""
        cut = waveform.unfold(1, len(self.window), self.hop) * self.window
        spectrum = torch.fft.rfft(cut, self.size)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + LOG_FLOOR).sqrt()
        return (magnitude @ self.bank).clamp_min(LOG_FLOOR).log()


class _Data:
    """The training utterances that a segment fits into, and their speakers' numbers."""

    def __init__(self, config: ScratchUnitHiFiGANConfig, utterances: Sequence[VocoderExample]) -> None:
        self._config = config
        rows = [row for row in utterances if int(np.sum(row.durations)) >= config.segment_frames]
        if not rows:
            raise VocoderError(
                f"every training utterance is shorter than segment_frames ({config.segment_frames}); lower it"
            )
        self.rows = rows
        self.speakers = sorted({row.speaker for row in rows})

    def voice(self) -> int | None:
        """Return the number of the voice to synthesize, None if there is only one."""
        wanted = self._config.speaker
        if wanted is not None and wanted not in self.speakers:
            raise VocoderError(f"speaker {wanted!r} has no training utterance; speakers: {', '.join(self.speakers)}")
        if len(self.speakers) == 1:
            return None
        spoken = dict.fromkeys(self.speakers, 0)
        for row in self.rows:
            spoken[row.speaker] += len(row.waveform)
        return self.speakers.index(wanted or max(self.speakers, key=lambda name: spoken[name]))

    @cached_property
    def _frames(self) -> list[np.ndarray]:
        return [expand(row.units, row.durations).astype(np.int64) for row in self.rows]

    def segments(self, batch: Sequence[int], step: int, device: torch.device) -> Segments:
        """Return a segment of every row of a batch, from a place that depends on seed and step only."""
        length, each = self._config.segment_frames, self._config.samples_per_frame
        random = np.random.default_rng([self._config.seed, step])
        frames, samples = [], []
        for row in batch:
            units = self._frames[row]
            first = int(random.integers(len(units) - length + 1))
            found = self.rows[row].waveform[first * each : (first + length) * each]
            frames.append(units[first : first + length])
            samples.append(np.pad(found, (0, length * each - len(found))))
        return Segments(
            torch.from_numpy(np.stack(frames)).to(device),
            torch.from_numpy(np.stack(samples)).float().to(device),
            torch.tensor([self.speakers.index(self.rows[row].speaker) for row in batch], device=device),
        )


def training_shape(config: ScratchUnitHiFiGANConfig, contract: UnitContract, *, num_speakers: int) -> Shape:
    """Return the generator's network, in the terms of a published settings file."""
    return Shape(
        sample_rate_hz=config.sample_rate_hz,
        num_units=contract.num_units,
        embedding_dim=config.embedding_dim,
        num_speakers=num_speakers if num_speakers > 1 else None,
        duration_dim=config.duration_dim,
        channels=config.upsample_initial_channel,
        upsample_rates=config.upsample_rates,
        upsample_kernels=config.upsample_kernel_sizes,
        block_kernels=config.resblock_kernel_sizes,
        block_dilations=config.resblock_dilation_sizes,
    )


class Training(nn.Module):
    """Generator and discriminators; `losses` of a batch come in the two parts that are minimised in turns."""

    def __init__(self, config: ScratchUnitHiFiGANConfig, shape: Shape) -> None:
        super().__init__()
        self.generator = UnitHifiGan(shape)
        for module in _convolutions(self.generator):
            weight_norm(module)
        self.discriminators = Discriminators(
            periods=config.periods, scales=config.scales, channels=config.discriminator_channels
        )
        self.mel = LogMel(config)

    def synthesize(self, some: Segments) -> Tensor:
        """Return samples (batch, samples) of segments."""
        several = self.generator.spkr is not None
        lengths = [some.frames.shape[1]] * len(some.frames)
        return self.generator(some.frames, lengths, some.speakers[:, None] if several else None, None)[0]

    def duration_loss(self, units: Sequence[np.ndarray], durations: Sequence[np.ndarray]) -> Tensor:
        """Return the mean squared error of ln(frames + 1) over the units of whole utterances."""
        predictor = self.generator.dur_predictor
        assert predictor is not None  # noqa: S101 - `training_shape` always asks for one
        device, lengths = predictor.proj.weight.device, [len(row) for row in units]
        tail = PaddingMask.of(lengths, device)
        embedded = tail.clear(self.generator.dict(_padded(units).long().to(device)).transpose(1, 2))
        wanted = _padded([np.log1p(np.asarray(row, np.float32)) for row in durations]).to(device)
        own = torch.arange(wanted.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
        return (predictor(embedded, tail) - wanted)[own].square().mean()


def _convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.from_numpy(np.asarray(row)) for row in rows], batch_first=True)


class _Run:
    """State of the training: networks, optimizers, and the losses (LOSSES) of every step so far."""

    def __init__(self, config: ScratchUnitHiFiGANConfig, training: Training) -> None:
        self.config, self.training = config, training
        self.optimisers = [
            torch.optim.AdamW(part.parameters(), lr=config.learning_rate, betas=BETAS)
            for part in (training.generator, training.discriminators)
        ]
        self.losses: list[list[float]] = []

    def train(self, data: _Data, work: Path | None) -> None:
        """Do the steps that are left; checkpoints are kept in `work`. DivergedError if a loss is not finite."""
        config = self.config
        order = batches(len(data.rows), batch_size=config.batch_size, steps=config.steps, seed=config.seed)
        left = islice(enumerate(order), len(self.losses), None)
        for step, batch in track(left, total=config.steps - len(self.losses), label="vocoder"):
            passes = step * config.batch_size // len(data.rows)
            self._set_rate(config.learning_rate * config.learning_rate_decay**passes)
            self.losses.append(self._step(data, batch, step))
            if not np.isfinite(self.losses[-1]).all():
                found = dict(zip(LOSSES, self.losses[-1], strict=True))
                raise DivergedError(f"step {step} of {config.steps}: {found}; lower learning_rate")
            if work and (step + 1) % config.save_steps == 0:
                self.save(work)

    def _set_rate(self, rate: float) -> None:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate

    def _step(self, data: _Data, batch: Sequence[int], step: int) -> list[float]:
        training, (generator, discriminators) = self.training, self.optimisers
        some = data.segments(batch, step, self.training.mel.window.device)
        synthesized = training.synthesize(some)
        telling = discriminator_loss(
            training.discriminators(some.samples), training.discriminators(synthesized.detach())
        )
        _update(discriminators, telling)
        training.discriminators.requires_grad_(requires_grad=False)  # half the backward pass of the generator's step
        real, found = training.discriminators(some.samples), training.discriminators(synthesized)
        deceiving = adversarial_loss(found) + FEATURE_WEIGHT * feature_loss(real, found)
        mel = F.l1_loss(training.mel(synthesized), training.mel(some.samples))
        lasting = training.duration_loss(
            [data.rows[row].units for row in batch], [data.rows[row].durations for row in batch]
        )
        _update(generator, deceiving + MEL_WEIGHT * mel + lasting)
        training.discriminators.requires_grad_(requires_grad=True)
        return [float(loss.detach()) for loss in (mel, lasting, deceiving, telling)]

    def save(self, work: Path) -> None:
        """Save a checkpoint to resume from."""
        state = {
            "training": self.training.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }
        with atomic_write(work / CHECKPOINT) as partial:
            torch.save(state, partial)

    def resume(self, work: Path) -> None:
        """Load the checkpoint of an earlier run with the same inputs, if there is one; a damaged one is removed."""
        path = work / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            print(f"{path} is damaged ({str(error).splitlines()[0]}); the vocoder's training starts again", flush=True)
            path.unlink()
            return
        self.training.load_state_dict(state["training"])
        for optimiser, found in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(found)
        self.losses = state["losses"].tolist()
        print(f"resuming the vocoder's training at step {len(self.losses)}", flush=True)


def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def fit(
    config: ScratchUnitHiFiGANConfig,
    utterances: Sequence[VocoderExample],
    contract: UnitContract,
    folder: Path,
    *,
    work: Path | None,
    device: str,
) -> dict[str, float]:
    """Train on `utterances` and leave the generator, folded, in `folder`; return the mean losses of the last tenth.

    `mel_loss` is the mean absolute error of natural log-mel magnitudes, `duration_loss` the mean squared error of
    ln(frames + 1). training.csv has the losses of every step, speakers.txt the voices by number. On a CPU the same data
    give the same bytes, also after a kill. VocoderError if the utterances do not fit the contract or the config.
    """
    check_examples(utterances, contract, sample_rate_hz=config.sample_rate_hz)
    data = _Data(config, utterances)
    voice = data.voice()
    shape = training_shape(config, contract, num_speakers=len(data.speakers))
    with seeded(config.seed):
        training = Training(config, shape)
    run = _Run(config, training.to(resolve_device(device)))
    if work:
        run.resume(work)
    with exact_float32():
        run.train(data, work)
    network = training.generator.cpu()
    for module in _convolutions(network):
        remove_parametrizations(module, "weight")
    save_voice(Voice(contract=contract, shape=shape, speaker=voice, style=None, sources={}), network, folder)
    write_text(folder / SPEAKERS_FILE, "".join(f"{name}\n" for name in data.speakers))
    log = pl.DataFrame(run.losses, schema=LOSSES, orient="row").with_row_index("step", offset=1)
    write_text(folder / LOG_FILE, log.write_csv(float_precision=5))
    last = log.tail(max(1, config.steps // 10)).select(LOSSES).mean().row(0, named=True)
    return {**last, "excluded_utterances": float(len(utterances) - len(data.rows))}

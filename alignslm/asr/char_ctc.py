"""A character ASR model that fits in seconds: convolutions over log-mel frames, trained with CTC.

No language model and no lexicon: transcripts keep the errors of the speech, which the judge should see.
"""

import json
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from alignslm.asr import ASRError, Transcript
from alignslm.audio import log_mel, rms
from alignslm.config.speech import CharCTCASRConfig
from alignslm.convnet import ConvStack, batches, length_mask, map_rows, seeded, standardize, train
from alignslm.storage import atomic_write, write_text
from alignslm.threads import thread_map

KERNEL_SIZE = 5
STRIDE = 2
BLANK = 0


class MelToCharacters(nn.Module):
    """Log-mel frames to log-probabilities of characters; class 0 is the CTC blank."""

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, config: CharCTCASRConfig, *, num_classes: int) -> None:
        super().__init__()
        self.entry = nn.Conv1d(config.num_mels, config.channels, KERNEL_SIZE, STRIDE, KERNEL_SIZE // 2)
        self.stack = ConvStack(channels=config.channels, layers=config.layers, kernel_size=KERNEL_SIZE)
        self.head = nn.Conv1d(config.channels, num_classes, 1)
        self.register_buffer("mel_mean", torch.zeros(config.num_mels))
        self.register_buffer("mel_std", torch.ones(config.num_mels))

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log-probabilities (batch, ceil(frames / 2), classes) of standardised log-mel (batch, frames, mels).

        `mask` (batch, 1, ceil(frames / 2)) is 0 after a row's end; padded mel frames must be 0.
        """
        hidden = self.stack(self.entry(mel.transpose(1, 2)), mask)
        return F.log_softmax(self.head(hidden).float().transpose(1, 2), dim=2)


def collapse(classes: Sequence[int]) -> list[int]:
    """Turn the best class of every frame into a label sequence: merge repeats, then drop blanks (Graves, 2006)."""
    return [label for label, _ in groupby(classes) if label != BLANK]


def needed_frames(labels: Sequence[int]) -> int:
    """Return the fewest frames that CTC can align with the labels: a blank must part equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def _mel_of(config: CharCTCASRConfig, waveform: np.ndarray) -> np.ndarray:
    return log_mel(
        waveform,
        sample_rate_hz=config.sample_rate_hz,
        num_mels=config.num_mels,
        window_samples=config.window_samples,
        hop_samples=config.hop_samples,
    )


def _plain(text: str) -> str:
    return " ".join(text.split())


def fit(config: CharCTCASRConfig, spoken: Sequence[tuple[np.ndarray, str]], folder: Path) -> dict[str, float]:
    """Train on (waveform, text) rows and leave model, alphabet and settings in `folder`.

    The alphabet is the characters of the texts; runs of white space become one space. Rows with audio too
    short for their text have no CTC alignment: they are left out and counted. Returns `loss_nats` (a character,
    mean of the last tenth of the steps) and `unalignable` (rows left out). Deterministic on one machine.
    """
    texts = [_plain(text) for _, text in spoken]
    alphabet = sorted(set("".join(texts)))
    labels = [[alphabet.index(character) + 1 for character in text] for text in texts]
    mels = thread_map(lambda row: _mel_of(config, row[0]), spoken)
    usable = [i for i, mel in enumerate(mels) if labels[i] and needed_frames(labels[i]) <= _num_outputs(len(mel))]
    if not usable:
        raise ASRError(
            f"none of {len(spoken)} training utterances has a text that fits its audio; is the train split without "
            f"texts, or the audio not at {config.sample_rate_hz} Hz?"
        )
    inputs, mean, std = standardize([mels[i] for i in usable])
    rows = [(torch.from_numpy(mel), torch.tensor(labels[i])) for mel, i in zip(inputs, usable, strict=True)]
    with seeded(config.seed):
        model = MelToCharacters(config, num_classes=len(alphabet) + 1)
        model.mel_mean.copy_(torch.from_numpy(mean))
        model.mel_std.copy_(torch.from_numpy(std))
        order = batches(len(rows), batch_size=config.batch_size, steps=config.steps, seed=config.seed)
        losses = train(
            model,
            lambda batch: _loss(model, [rows[i] for i in batch]),
            order,
            steps=config.steps,
            peak_rate=config.learning_rate,
        )
    _save(model, config, alphabet, folder)
    last = losses[-max(1, config.steps // 10) :]
    return {"loss_nats": float(np.mean(last)), "unalignable": float(len(spoken) - len(usable))}


def _num_outputs(num_mel_frames: int) -> int:
    return -(-num_mel_frames // STRIDE)


def _loss(model: MelToCharacters, rows: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the CTC loss in nats a character, each row divided by its own number of characters."""
    lengths = torch.tensor([_num_outputs(len(mel)) for mel, _ in rows])
    mel = nn.utils.rnn.pad_sequence([mel for mel, _ in rows], batch_first=True)
    log_probabilities = model(mel, length_mask(lengths, int(lengths.max())))
    targets = torch.cat([labels for _, labels in rows])
    target_lengths = torch.tensor([len(labels) for _, labels in rows])
    return F.ctc_loss(log_probabilities.transpose(0, 1), targets, lengths, target_lengths, blank=BLANK)


def _save(model: MelToCharacters, config: CharCTCASRConfig, alphabet: list[str], folder: Path) -> None:
    with atomic_write(folder / "model.safetensors") as partial:
        save_file(model.state_dict(), partial)
    settings = {"config": config.model_dump(mode="json", exclude_none=True), "alphabet": alphabet}
    write_text(folder / "recogniser.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")


class CharCTCASR:
    """Greedy CTC transcripts; each waveform is transcribed separately.

    Confidence is the geometric mean, over all frames, of the best class's probability: in (0, 1].
    """

    def __init__(self, config: CharCTCASRConfig, alphabet: Sequence[str], model: MelToCharacters) -> None:
        self.sample_rate_hz = config.sample_rate_hz
        self._config = config
        self._alphabet = alphabet
        self._model = model.eval()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load what `fit` left in `folder`; ASRError if nothing is there."""
        try:
            settings = json.loads((folder / "recogniser.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ASRError(f"{folder} has no ASR model (recogniser.json). Run `dvc repro asr`.") from error
        config, alphabet = CharCTCASRConfig.model_validate(settings["config"]), settings["alphabet"]
        model = MelToCharacters(config, num_classes=len(alphabet) + 1)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(config, alphabet, model)

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Return one transcript per waveform (samples,).

        `failed` if a sample is NaN or infinite or the confidence below the config's `confidence_threshold` (the text is
        then in `raw_text`); `empty` if there is no sample, if the root mean square is below the config's `silence_rms`,
        or if no character was recognized.
        """
        return map_rows(self._transcribe, waveforms)

    def _transcribe(self, waveform: np.ndarray) -> Transcript:
        if not np.isfinite(waveform).all():
            return Transcript(None, "failed", None)
        if rms(waveform) < self._config.silence_rms:  # no samples have rms 0
            return Transcript(None, "empty", None)
        mel = torch.from_numpy(_mel_of(self._config, waveform))
        scores, classes = self._model(((mel - self._model.mel_mean) / self._model.mel_std)[None])[0].max(dim=1)
        text = _plain("".join(self._alphabet[label - 1] for label in collapse(classes.tolist())))
        confidence, least = float(scores.mean().exp()), self._config.confidence_threshold
        if text and least is not None and confidence < least:
            return Transcript(None, "failed", confidence, raw_text=text)
        return Transcript(text or None, "ok" if text else "empty", confidence)

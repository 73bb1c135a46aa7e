"""Whisper run by CTranslate2, as in faster-whisper: the same transcripts sooner, and on a CPU in int8.

Recordings are transcribed singly, so a text cannot depend on its batch. Pieces, prompt, guards and table are those of
`whisper`; CTranslate2 does not end a text that repeats itself, but it is cut and discarded in the same place.
Confidence is of the probabilities that CTranslate2 decodes with, those after tokens were suppressed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import WhisperProcessor

from alignslm.asr import ASRError
from alignslm.asr.whisper import DecodedSegment, WhisperASR
from alignslm.asr.whisper_checkpoint import decoder_prompt, find, load_processor, record
from alignslm.config.whisper import FasterWhisperASRConfig
from alignslm.device import resolve_device
from alignslm.extras import needed
from alignslm.fetching import download
from alignslm.loading.ctranslate2 import WEIGHTS_FILE, read_config
from alignslm.loading.whisper import SETTINGS

PATTERNS = (*SETTINGS, WEIGHTS_FILE)


def fetch(config: FasterWhisperASRConfig, folder: Path) -> dict[str, float]:
    """Fetch a checkpoint, verify that it matches the config, and write config and identity to `folder`.

    The weights stay in the download cache. Raises ASRError, CTranslate2Error or MissingPackageError.
    """
    weights = download(config.weights, patterns=PATTERNS)
    if not (weights.path / WEIGHTS_FILE).is_file():
        raise ASRError(f"{weights.path} has no {WEIGHTS_FILE} for CTranslate2; for other formats use kind: whisper")
    FasterWhisperASR(config, load_processor(weights.path, config), weights.path, device="cpu")
    record(folder, config, weights.identity)
    return {"megabytes": (weights.path / WEIGHTS_FILE).stat().st_size / 1e6}


class FasterWhisperASR(WhisperASR):
    """A Whisper checkpoint in CTranslate2's form; see `WhisperASR` for what its transcripts say."""

    def __init__(self, config: FasterWhisperASRConfig, processor: WhisperProcessor, path: Path, *, device: str) -> None:
        with needed("ctranslate2", by=config.kind):
            from ctranslate2 import StorageView, models
        self.sample_rate_hz, self._config, self._processor = config.sample_rate_hz, config, processor
        self._prompt = decoder_prompt(config, processor, *read_config(path))
        self._view: Any = StorageView.from_array
        self._model = models.Whisper(
            str(path),
            device=resolve_device(device),
            compute_type=config.compute_type,
            intra_threads=torch.get_num_threads(),
        )

    @classmethod
    def load(cls, folder: Path, *, device: str) -> Self:
        """Load the very checkpoint that `fetch` recorded in `folder`."""
        config, path = find(folder, FasterWhisperASRConfig, patterns=PATTERNS, pickled=())
        return cls(config, load_processor(path, config), path, device=device)

    def _decode_batch(self, pieces: Sequence[np.ndarray]) -> list[DecodedSegment]:
        return [self._decode_piece(piece) for piece in pieces]

    def _decode_piece(self, piece: np.ndarray) -> DecodedSegment:
        features = self._processor.feature_extractor(piece, sampling_rate=self.sample_rate_hz, return_tensors="np")
        (found,) = self._model.generate(
            self._view(np.ascontiguousarray(features["input_features"], np.float32)),
            [self._prompt],
            beam_size=self._config.num_beams,
            max_length=2 * self._config.max_new_tokens,  # of which CTranslate2 gives at most half to the text
            return_scores=True,
            return_no_speech_prob=True,
        )
        tokens = found.sequences_ids[0]
        length = len(tokens) + (len(tokens) < self._config.max_new_tokens)  # its end of text is not among them
        text = self._processor.tokenizer.decode(self._until_repeating(tokens), skip_special_tokens=True).strip()
        return DecodedSegment(text, found.scores[0] * length, length, found.no_speech_prob)

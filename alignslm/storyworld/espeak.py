"""Speech by espeak-ng through ctypes: an utterance's samples depend only on its text, voice and rate.

espeak-ng keeps state between utterances (pitch flutter, among others) that neither a new seed, nor setting the
voice again, nor espeak_Terminate and espeak_Initialize resets: in one process the same text comes out
different every time. Static data is reset only by loading the library again, which costs 2 ms, so every utterance
gets a freshly loaded library. It runs in synchronous mode: the other modes start a thread, which may hang.
"""

import _ctypes
import ctypes
import difflib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import espeakng_loader
import numpy as np

from alignslm.audio import resample
from alignslm.storage import temporary_folder
from alignslm.storyworld import StoryWorldError

_SYNCHRONOUS, _POSITION_CHARACTER, _RATE = 2, 1, 1  # espeak_AUDIO_OUTPUT, espeak_POSITION_TYPE, espeak_PARAMETER
_UTF8, _PHONEME_INPUT = 1, 0x100
_FULL_SCALE = 32768
_SILENCE = 0.002  # below -54 dB full scale: a pause that espeak adds around an utterance
_BETWEEN_PHONEMES = "|"

_SampleCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()


class _Espeak:
    """One freshly loaded library; `samples` collects what its callback receives, as 16-bit PCM."""

    def __init__(self, voice: str) -> None:
        self.library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = _data_of(voice).name.encode()
        self.sample_rate_hz = int(self.library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0))
        if self.sample_rate_hz <= 0:
            raise StoryWorldError(f"espeak-ng did not start with {data.decode()}; reinstall espeakng-loader")
        self.samples: list[bytes] = []
        self._callback = _SampleCallback(self._receive)
        self.library.espeak_SetSynthCallback(self._callback)
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise StoryWorldError(f"espeak-ng rejected voice {voice!r}; its data folder may be damaged")

    def _receive(self, wave: int | None, num_samples: int, _events: int | None) -> int:
        if wave and num_samples > 0:
            self.samples.append(ctypes.string_at(wave, 2 * num_samples))
        return 0


@contextmanager
def _fresh_espeak(voice: str) -> Iterator[_Espeak]:
    """Load the library with a voice, and unload it so that nothing it remembers reaches the next utterance."""
    with _lock:
        espeak = _Espeak(voice)
        try:
            yield espeak
        finally:
            espeak.library.espeak_Terminate()
            _unload(espeak.library)
        _require_unloaded()


def _unload(library: ctypes.CDLL) -> None:
    """Unload a library. The module `ctypes` offers no public way to do so."""
    close = "FreeLibrary" if sys.platform == "win32" else "dlclose"
    getattr(_ctypes, close)(library._handle)  # noqa: SLF001


def _require_unloaded() -> None:
    if sys.platform == "win32":  # it cannot be asked there without being loaded
        return
    path = str(espeakng_loader.get_library_path())
    try:
        still = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
    except OSError:
        return
    _unload(still)
    raise StoryWorldError(
        f"{path} stays loaded, so speech would depend on what was spoken before. "
        "Something else in this process uses espeak-ng: speak in a process of its own."
    )


@lru_cache(maxsize=1)
def voices() -> Mapping[str, Path]:
    """Return every voice that `speak` accepts, and its file below lang/. A variant may follow: `en-us+m3`.

    Three languages of espeakng-loader's data come without their dictionary, and can say nothing.
    """
    data = Path(espeakng_loader.get_data_path())
    files = sorted(path for path in (data / "lang").rglob("*") if path.is_file())
    named = {path.name.lower(): path.relative_to(data / "lang") for path in files}
    return {name: path for name, path in named.items() if (data / f"{_dictionary(data / 'lang' / path)}_dict").exists()}


def _dictionary(voice: Path) -> str:
    """Return the language of a voice file's dictionary: the one it names, else its own."""
    lines = [line.split() for line in voice.read_text().splitlines()]
    return next((words[1] for words in lines if words[:1] == ["dictionary"]), voice.name.lower().partition("-")[0])


@lru_cache(maxsize=8)
def _data_of(voice: str) -> TemporaryDirectory[str]:
    """Return espeak-ng's data folder with one voice and its variant in it, by links; it goes when the process ends.

    espeak-ng finds a voice by reading the files of all of them: two thirds of the time that a sentence takes.
    """
    data, folder = Path(espeakng_loader.get_data_path()), temporary_folder()
    name, _, variant = voice.partition("+")
    wanted = [Path(path.name) for path in data.iterdir() if path.name not in {"lang", "voices"}]
    wanted += [Path("lang") / voices()[name], *([Path("voices/!v") / variant] if variant else [])]
    for below in wanted:
        link = Path(folder.name) / below
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(data / below)
    return folder


def require_voice(voice: str) -> None:
    """Raise StoryWorldError, naming close ones, unless espeak-ng has this voice and this variant."""
    name, _, variant = voice.partition("+")
    if name not in voices():
        close = difflib.get_close_matches(name, voices(), n=4, cutoff=0.3) or sorted(voices())[:4]
        raise StoryWorldError(f"voice {name!r} is unknown to espeak-ng; close ones: {', '.join(close)}. Set `voice`.")
    if not variant:
        return
    variants = sorted(path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir())
    if variant not in variants:
        close = difflib.get_close_matches(variant, variants, n=4, cutoff=0.3) or variants[:4]
        raise StoryWorldError(f"voice variant {variant!r} is unknown to espeak-ng; close ones: {', '.join(close)}.")


def synthesize(text: str, *, voice: str, words_per_minute: int, sample_rate_hz: int) -> np.ndarray:
    """Return (samples,) float32 of `text`, silence around it cut off. `[[...]]` in the text is phoneme input."""
    require_voice(voice)
    encoded = text.encode()
    with _fresh_espeak(voice) as espeak:
        espeak.library.espeak_SetParameter(_RATE, words_per_minute, 0)
        flags = _UTF8 | _PHONEME_INPUT
        espeak.library.espeak_Synth(encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, flags, None, None)
        pcm, from_hz = np.frombuffer(b"".join(espeak.samples), np.int16), espeak.sample_rate_hz
    waveform = trim(pcm.astype(np.float32) / _FULL_SCALE)
    if not waveform.size:
        raise StoryWorldError(f"espeak-ng made no sound of {text!r} with voice {voice!r}; give it some words")
    return resample(waveform, from_hz=from_hz, to_hz=sample_rate_hz)


def trim(waveform: np.ndarray) -> np.ndarray:
    """Cut samples quieter than -54 dB full scale off both ends."""
    loud = np.flatnonzero(np.abs(waveform) >= _SILENCE)
    return waveform[loud[0] : loud[-1] + 1] if loud.size else waveform[:0]


def phonemes(words: tuple[str, ...], *, voice: str) -> list[tuple[str, ...]]:
    """Return every word's phonemes in espeak's ASCII mnemonics, stress marks kept before their vowel."""
    require_voice(voice)
    with _fresh_espeak(voice) as espeak:
        return [_phonemes_of(espeak, word) for word in words]


def _phonemes_of(espeak: _Espeak, word: str) -> tuple[str, ...]:
    text = ctypes.c_char_p(word.encode())
    mode = ord(_BETWEEN_PHONEMES) << 8
    mnemonics: bytes = espeak.library.espeak_TextToPhonemes(ctypes.byref(text), _UTF8, mode)
    return tuple(part for part in mnemonics.decode().strip().split(_BETWEEN_PHONEMES) if part)

"""Seconds of encoder, vocoder, ASR model and espeak-ng on this machine's device.

Fitted models are fitted for a few steps on noise; HuBERT, HiFi-GAN and Whisper are built from their published
architecture with random weights, which compute as fast as trained ones; weights of installed packages are timed
themselves. None: a kind that cannot be timed so.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, HubertConfig, HubertModel, WhisperForConditionalGeneration

from alignslm.asr import load_asr, prepare_asr
from alignslm.audio import decode, encode_flac
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.sources import PackageSource
from alignslm.config.speech import CharCTCASRConfig, ConvGriffinLimConfig, MFCCKMeansConfig, StoryWorldConfig
from alignslm.config.speech_kmeans import SpeechKMeansConfig
from alignslm.config.unit_hifigan import UnitHiFiGANConfig
from alignslm.config.whisper import FasterWhisperASRConfig, WhisperASRConfig
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.encoder.speech_kmeans import unit_frames
from alignslm.encoder.speech_states import load_states
from alignslm.fetching import download
from alignslm.loading.whisper import PATTERNS
from alignslm.plan.bench import CLIPS, Bench, decoding, quiet
from alignslm.plan.downloads import is_here
from alignslm.plan.workload import TOKENS_PER_WORD, WORDS_PER_S
from alignslm.storyworld.corpus import synthesize_corpus
from alignslm.storyworld.espeak import synthesize as synthesize_text
from alignslm.vocoder import VocoderExample, load_vocoder, prepare_vocoder
from alignslm.vocoder.unit_hifigan_net import Shape, UnitHifiGan

TEXT = "they bow to the crowd again"
# Width and layers of encoder and decoder; turbo models have a decoder of four.
WHISPER = {"tiny": (384, 4), "base": (512, 6), "small": (768, 12), "medium": (1024, 24), "large": (1280, 32)}


def _stored(speech: list[np.ndarray], rate_hz: int) -> list[bytes]:
    return [encode_flac(wave, rate_hz) for wave in speech]


def story(bench: Bench) -> float:
    """Time a storyworld utterance spoken by espeak-ng."""
    corpus = bench.experiment.corpus
    assert isinstance(corpus, StoryWorldConfig)  # noqa: S101 - no other corpus is synthesized

    def run(count: int) -> None:
        stories = corpus.stories.model_copy(update={"train": count, "valid": 1, "dev": 0, "test": 1})
        small = corpus.model_copy(update={"stories": stories, "seed": int(bench.rng.integers(1 << 30))})
        list(synthesize_corpus(small, workers=1, shard_size=500, work=bench.fresh()))

    return bench.time(run, 4, 28) / bench.execution.num_workers


def _examples(bench: Bench, count: int) -> list[VocoderExample]:
    rate_hz, frames = (
        bench.experiment.vocoder.sample_rate_hz,
        round(bench.sizes.utterance_s * bench.contract.frame_rate_hz),
    )
    units = bench.units(bench.sizes.utterance_units, count)
    lasting = np.ones(bench.sizes.utterance_units, np.int64)
    lasting[: frames - len(lasting)] += 1
    speech = bench.speech(frames / bench.contract.frame_rate_hz, rate_hz, count)
    return [VocoderExample(np.array(row), lasting, wave) for row, wave in zip(units, speech, strict=True)]


def encode(bench: Bench) -> float | None:
    """Time a second of speech, read and encoded."""
    config = bench.experiment.encoder
    speech = bench.speech(bench.sizes.utterance_s, config.sample_rate_hz)
    match config:
        case MFCCKMeansConfig():
            few = config.model_copy(update={"num_units": min(config.num_units, 100)})
            prepare_encoder(few, speech, bench.folder / "encoder")
            encoder = load_encoder(few, bench.folder / "encoder", device=bench.device)
            stored = _stored(speech, config.sample_rate_hz)
            one = bench.time(lambda n: encoder.encode([decode(flac)[0] for flac in stored[:n]]), 1, CLIPS)
            return one / bench.sizes.utterance_s
        case HubertEncoderConfig():
            model = HubertModel(HubertConfig()).eval().to(bench.device)
            model.encoder.layers = model.encoder.layers[: config.layer]
            waves = [torch.from_numpy(wave)[None].to(bench.device) for wave in speech[:3]]
            return bench.time(quiet(lambda n: [model(wave) for wave in waves[:n]]), 1, 3) / bench.sizes.utterance_s
        case SpeechKMeansConfig(weights=PackageSource()) if is_here(config.weights):
            states = load_states(config, download(config.weights, patterns=PATTERNS).path, device=bench.device)
            run = quiet(lambda n: [unit_frames(config, states, wave) for wave in speech[:n]])
            return bench.time(run, 1, 3) / bench.sizes.utterance_s
    return None


def vocoder_step(bench: Bench) -> float | None:
    """Time a training step of the vocoder."""
    config, examples = bench.experiment.vocoder, _examples(bench, 2 * CLIPS)
    if not isinstance(config, ConvGriffinLimConfig):
        return None
    return bench.time(lambda steps: _fit_vocoder(bench, config, examples, steps), 1, 5)


def _fit_vocoder(bench: Bench, config: ConvGriffinLimConfig, examples: list[VocoderExample], steps: int) -> Path:
    folder = bench.folder / "vocoder"
    prepare_vocoder(config.model_copy(update={"steps": steps}), examples, bench.contract, folder)
    return folder


def synthesize(bench: Bench) -> float | None:
    """Time a second of speech, synthesized and stored."""
    match bench.experiment.vocoder:
        case ConvGriffinLimConfig() as config:
            vocoder = load_vocoder(config, _fit_vocoder(bench, config, _examples(bench, CLIPS), 1), device=bench.device)
            units = bench.units(bench.sizes.units, 3 * CLIPS)
            seconds = sum(len(wave) for wave in vocoder.synthesize(units)) / vocoder.sample_rate_hz / len(units)
            rate_hz = vocoder.sample_rate_hz
            one = bench.time(lambda n: _stored(vocoder.synthesize(units[:n]), rate_hz), CLIPS, 3 * CLIPS)
            return one / seconds
        case UnitHiFiGANConfig():
            shape = Shape(
                sample_rate_hz=16000, duration_dim=None,
                num_units=bench.contract.num_units, embedding_dim=128, channels=512, upsample_rates=(5, 4, 4, 4, 2),
                upsample_kernels=(11, 8, 8, 8, 4), block_kernels=(3, 7, 11), block_dilations=((1, 3, 5),) * 3,
            )  # fmt: skip
            network = UnitHifiGan(shape).eval().to(bench.device)
            frames = torch.zeros((1, round(2 * bench.contract.frame_rate_hz)), dtype=torch.long, device=bench.device)
            return (
                bench.time(quiet(lambda n: [network(frames, [frames.shape[1]], None, None) for _ in range(n)]), 1, 3)
                / 2
            )
    return None


def asr_step(bench: Bench) -> float | None:
    """Time a training step of the ASR model."""
    config = bench.experiment.asr
    if not isinstance(config, CharCTCASRConfig):
        return None
    speech = [(wave, TEXT) for wave in bench.speech(bench.sizes.utterance_s, config.sample_rate_hz, 2 * CLIPS)]

    def run(steps: int) -> None:
        prepare_asr(config.model_copy(update={"steps": steps}), speech, bench.folder / "asr")

    return bench.time(run, 1, 5)


def transcribe(bench: Bench) -> float | None:
    """Time a continuation, read and transcribed."""
    match bench.experiment.asr:
        case CharCTCASRConfig() as config:
            speech = bench.speech(bench.sizes.spoken_s, config.sample_rate_hz, 4 * CLIPS)
            folder = bench.folder / "asr"
            prepare_asr(config.model_copy(update={"steps": 1}), [(wave, TEXT) for wave in speech], folder)
            model = load_asr(config, folder, device=bench.device)
            stored = _stored(speech, config.sample_rate_hz)
            return bench.time(lambda n: model.transcribe([decode(flac)[0] for flac in stored[:n]]), CLIPS, 4 * CLIPS)
        case WhisperASRConfig() as config:
            return _whisper(bench, config)
        case FasterWhisperASRConfig(weights=PackageSource()) as config if is_here(config.weights):
            (bench.folder / "asr").mkdir()
            prepare_asr(config, [], bench.folder / "asr")
            model = load_asr(config, bench.folder / "asr", device=bench.device)
            spoken = [synthesize_text(TEXT, voice="en-us", words_per_minute=200, sample_rate_hz=config.sample_rate_hz)]
            return bench.time(lambda n: model.transcribe(n * spoken), 1, 3)
    return None


def _whisper(bench: Bench, config: WhisperASRConfig) -> float | None:
    """Time the 30 s that every clip is to Whisper, and the tokens of its words."""
    name = str(getattr(config.weights, "repo", getattr(config.weights, "path", ""))).rpartition("whisper-")[2]
    if (size := WHISPER.get(name.partition(".")[0].partition("-")[0])) is None:
        return None
    rows, tokens = 16 if bench.on_gpu else 1, bench.sizes.spoken_s * WORDS_PER_S * TOKENS_PER_WORD

    def of(deep: int, *, decoder: bool) -> float:
        model = _whisper_model(bench, size[0], deep, config.dtype)
        sound = torch.zeros((rows, 80, 3000), device=bench.device, dtype=model.dtype)
        if not decoder:
            return bench.time(quiet(lambda n: [model.get_encoder()(sound) for _ in range(n)]), 1, 2) / rows
        states = torch.zeros((rows, 1500, size[0]), device=bench.device, dtype=model.dtype)
        step = decoding(model.get_decoder(), bench.device, rows, encoder_hidden_states=states)
        return bench.time(step, 2, 6) / rows * tokens

    decoder_layers = 4 if name.endswith("turbo") else size[1]
    encoded = bench.by_layers(lambda deep: of(deep, decoder=False), size[1])
    return encoded + bench.by_layers(lambda deep: of(deep, decoder=True), decoder_layers)


def _whisper_model(bench: Bench, width: int, deep: int, dtype: str) -> WhisperForConditionalGeneration:
    parts = ("encoder", "decoder")
    sizes = {"attention_heads": width // 64, "ffn_dim": 4 * width, "layers": deep}
    both = {f"{part}_{name}": size for part in parts for name, size in sizes.items()}
    config: Any = AutoConfig.for_model("whisper", d_model=width, **both)
    model = WhisperForConditionalGeneration(config)
    return model.eval().to(bench.device, getattr(torch, dtype))

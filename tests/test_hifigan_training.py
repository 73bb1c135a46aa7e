"""A unit HiFi-GAN trained on tones: each unit is a pitch, so what it synthesizes can be measured."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from alignslm.audio import LOG_FLOOR, fft_size, hann, mel_filterbank
from alignslm.config.unit_hifigan import ScratchUnitHiFiGANConfig
from alignslm.integrity import read_json
from alignslm.vocoder import VocoderError, VocoderExample, load_vocoder, prepare_vocoder
from alignslm.vocoder.hifigan_discriminators import (
    Opinion,
    PeriodDiscriminator,
    ScaleDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from alignslm.vocoder.hifigan_training import CHECKPOINT, LogMel, Training, training_shape
from alignslm.vocoder.unit_hifigan import VOICE_FILE, Voice
from alignslm.vocoder.unit_hifigan_net import PaddingMask
from tests import micro
from tests.messages import names
from tests.tones import contract_of, spoken

RATE_HZ = 4000
FRAME_SAMPLES = 160
PITCHES_HZ = (300.0, 650.0, 1000.0, 1600.0)
CONFIG = ScratchUnitHiFiGANConfig(
    kind="unit-hifigan-scratch",
    seed=3,
    fit_utterances=8,
    sample_rate_hz=RATE_HZ,
    speaker=None,
    embedding_dim=16,
    duration_dim=16,
    upsample_initial_channel=32,
    upsample_rates=(5, 8, 4),
    upsample_kernel_sizes=(11, 16, 8),
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    discriminator_channels=32,
    periods=(3,),
    scales=1,
    num_mels=20,
    hop_samples=64,
    window_samples=256,
    segment_frames=5,
    batch_size=4,
    steps=6,
    learning_rate=0.005,
    learning_rate_decay=0.99,
    save_steps=4,
)
CONTRACT = contract_of(RATE_HZ)
ROWS = [spoken(seed, PITCHES_HZ, RATE_HZ) for seed in range(8)]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(**values: object) -> ScratchUnitHiFiGANConfig:
    return ScratchUnitHiFiGANConfig.model_validate({**CONFIG.model_dump(), **values})


def loudest_hz(waveform: np.ndarray) -> float:
    """Return the loudest frequency above 150 Hz: a mel filterbank does not see an offset, so neither does the loss."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), RATE_HZ))
    spectrum[:150] = 0
    return float(spectrum.argmax())


@pytest.mark.long
def test_every_unit_gets_its_pitch_and_its_duration(tmp_path):
    config = changed(
        upsample_initial_channel=64, embedding_dim=32, learning_rate=0.002, learning_rate_decay=1.0, segment_frames=8,
        steps=600,
    )  # fmt: skip
    prepare_vocoder(config, ROWS, CONTRACT, tmp_path, device="cpu")
    vocoder = load_vocoder(config, tmp_path, device="cpu")
    predicted = vocoder.durations([row.units for row in ROWS])
    assert np.mean(np.concatenate(predicted) == np.concatenate([row.durations for row in ROWS])) > 0.95
    for unit, hz in enumerate(PITCHES_HZ):
        (waveform,) = vocoder.synthesize([[unit, (unit + 1) % 4]])
        assert loudest_hz(waveform[: (unit + 1) * FRAME_SAMPLES]) == pytest.approx(hz, abs=80)
    log = pl.read_csv(tmp_path / "training.csv")
    assert log["step"].to_list() == list(range(1, config.steps + 1))
    for loss in ("mel_loss", "duration_loss"):
        assert log[loss].tail(60).mean() < log[loss].head(60).mean() / 2


# ---- Networks and losses against slow, plain readings ---------------------------------------------------------------


@torch.inference_mode()
def test_a_period_discriminator_reads_each_column_by_itself():
    torch.manual_seed(0)
    network = PeriodDiscriminator(3, 32).double()
    waveform = torch.randn(2, 100, dtype=torch.float64)
    opinion = network(waveform)
    padded = F.pad(waveform, (0, 2))  # 102 = 34 x 3
    for column in range(3):
        x = padded[:, None, column::3]
        for conv, stride in zip(network.convs, (3, 3, 3, 3, 1), strict=True):
            x = F.leaky_relu(F.conv1d(x, conv.weight[..., 0], conv.bias, stride=stride, padding=2), 0.1)
        x = F.conv1d(x, network.conv_post.weight[..., 0], network.conv_post.bias, padding=1)
        torch.testing.assert_close(opinion.features[-1][..., column], x)
    assert opinion.score.shape == (2, x.shape[-1] * 3)
    assert [feature.shape[1] for feature in opinion.features] == [1, 4, 16, 32, 32, 1]


@torch.inference_mode()
def test_a_scale_discriminator_reads_means_of_four_samples_every_two():
    torch.manual_seed(0)
    network = ScaleDiscriminator(1, 64).double().eval()
    waveform = torch.randn(1, 64, dtype=torch.float64)
    padded = F.pad(waveform, (2, 2))[0]
    halved = torch.stack([padded[at : at + 4].mean() for at in range(0, 65, 2)])
    found = network(waveform)
    first = F.leaky_relu(F.conv1d(halved[None, None], network.convs[0].weight, network.convs[0].bias, padding=7), 0.1)
    torch.testing.assert_close(found.features[0], first)
    assert [feature.shape[1] for feature in found.features] == [8, 8, 16, 32, 64, 64, 64, 1]


def test_discriminators_have_the_published_size():
    """Kong et al.'s five periods have 41.09 M weights, their three scales 29.6 M, without the norms' scales."""

    def millions(network: torch.nn.Module) -> float:
        shapes = [tuple(conv.weight.shape) for conv in [*network.convs, network.conv_post]]
        biases = sum(conv.bias.numel() for conv in [*network.convs, network.conv_post])
        return (sum(math.prod(shape) for shape in shapes) + biases) / 1e6

    with torch.device("meta"):
        assert 5 * millions(PeriodDiscriminator(2, 1024)) == pytest.approx(41.09, abs=0.05)
    assert 3 * millions(ScaleDiscriminator(0, 1024)) == pytest.approx(29.6, abs=0.1)


def test_losses_by_hand():
    def opinion(*score: float, features: list[list[float]]) -> Opinion:
        return Opinion(torch.tensor([score]), [torch.tensor(values) for values in features])

    real = [opinion(1.0, 0.5, features=[[1.0, 2.0]]), opinion(0.0, features=[[4.0], [1.0]])]
    made = [opinion(0.0, 1.0, features=[[1.0, 4.0]]), opinion(0.5, features=[[1.0], [1.0]])]
    assert float(discriminator_loss(real, made)) == pytest.approx((0.25 / 2 + 1 / 2) + (1 + 0.25))
    assert float(adversarial_loss(made)) == pytest.approx(1 / 2 + 0.25)
    assert float(feature_loss(real, made)) == pytest.approx(2 / 2 + 3 + 0)


def test_log_mel_is_that_of_a_plain_fourier_transform():
    waveform = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    bank = mel_filterbank(sample_rate_hz=RATE_HZ, num_mels=20, num_bins=129)
    starts = range(0, 1000 - 256 + 1, 64)
    spectra = [np.fft.rfft(waveform[at : at + 256] * hann(256), fft_size(256)) for at in starts]
    wanted = np.log(np.maximum(np.sqrt(np.abs(spectra) ** 2 + LOG_FLOOR) @ bank, LOG_FLOOR))
    found = LogMel(CONFIG)(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-4)


UTTERANCE = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=9)  # (unit, frames)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=9), min_size=1, max_size=4)
)
def test_the_duration_loss_is_the_mean_over_all_units_however_padded(rows):
    torch.manual_seed(0)
    training = Training(CONFIG, training_shape(CONFIG, CONTRACT, num_speakers=1)).double()
    units = [np.array([unit for unit, _ in row]) for row in rows]
    durations = [np.array([frames for _, frames in row]) for row in rows]
    errors: list[float] = []
    for some, lasting in zip(units, durations, strict=True):
        embedded = training.generator.dict(torch.from_numpy(some))[None].transpose(1, 2)
        found = training.generator.dur_predictor(embedded, PaddingMask.of([len(some)], embedded.device))[0]
        errors += [(value.item() - math.log(frames + 1)) ** 2 for value, frames in zip(found, lasting, strict=True)]
    assert training.duration_loss(units, durations).item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


# ---- Resuming, voices, bad input ------------------------------------------------------------------------------------

KILLED = """
from pathlib import Path
from tests.test_hifigan_training import CONTRACT, ROWS, changed
from alignslm.vocoder import prepare_vocoder
prepare_vocoder(changed(steps=400), ROWS, CONTRACT, Path("made"), work=Path("work"), device="cpu")
"""


def test_a_killed_training_resumes_to_the_same_bytes(tmp_path):
    """Killed at whatever step it has reached after its first checkpoint, then cut to that checkpoint's length."""
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path, env=environment) as process:
        while not (work / CHECKPOINT).exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = len(torch.load(work / CHECKPOINT, weights_only=True)["losses"])
    config = changed(steps=done + 4)
    prepare_vocoder(config, ROWS, CONTRACT, tmp_path / "resumed", work=work, device="cpu")
    prepare_vocoder(config, ROWS, CONTRACT, tmp_path / "whole", device="cpu")
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")


def test_a_damaged_checkpoint_is_named_and_training_starts_anew(tmp_path, capsys):
    (tmp_path / "work").mkdir()
    for name, damage in itertools.product(["whole", "damaged"], [b"PK\x03\x04 cut"]):
        if name == "damaged":
            (tmp_path / "work" / CHECKPOINT).write_bytes(damage)
        prepare_vocoder(changed(steps=2), ROWS, CONTRACT, tmp_path / name, work=tmp_path / "work", device="cpu")
    assert content(tmp_path / "whole") == content(tmp_path / "damaged")
    names(capsys.readouterr().out, CHECKPOINT, "damaged")


def test_voices_are_numbered_and_that_of_most_speech_is_synthesized(tmp_path):
    rows = [
        spoken(0, PITCHES_HZ, RATE_HZ, speaker="b"),
        spoken(1, PITCHES_HZ, RATE_HZ, speaker="a"),
        spoken(2, PITCHES_HZ, RATE_HZ, speaker="b"),
    ]
    prepare_vocoder(changed(steps=2), rows, CONTRACT, tmp_path / "most", device="cpu")
    prepare_vocoder(changed(steps=2, speaker="a"), rows, CONTRACT, tmp_path / "chosen", device="cpu")
    assert (tmp_path / "most" / "speakers.txt").read_text() == "a\nb\n"
    assert [read_json(tmp_path / name / VOICE_FILE, Voice).speaker for name in ("most", "chosen")] == [1, 0]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("most", "chosen")]
    assert weights[0]["spkr.weight"].shape == (2, CONFIG.embedding_dim)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    vocoders = [load_vocoder(CONFIG, tmp_path / name, device="cpu") for name in ("most", "chosen")]
    waveforms = [vocoder.synthesize([[0, 1]])[0] for vocoder in vocoders]
    assert waveforms[0].shape == waveforms[1].shape
    assert not np.array_equal(*waveforms)


def test_each_row_of_a_training_batch_has_its_own_speaker():
    torch.manual_seed(0)
    network = Training(CONFIG, training_shape(CONFIG, CONTRACT, num_speakers=2)).generator
    frames = torch.tensor([[0, 1, 2], [0, 1, 2]])
    together, _ = network(frames, [3, 3], torch.tensor([[0], [1]]), None)
    for speaker in (0, 1):
        alone, _ = network(frames[:1], [3], speaker, None)
        torch.testing.assert_close(together[speaker : speaker + 1], alone)


def test_bad_input_is_named(tmp_path):
    def refused(config: ScratchUnitHiFiGANConfig, rows: list[VocoderExample]) -> str:
        with pytest.raises(VocoderError) as caught:
            prepare_vocoder(config, rows, CONTRACT, tmp_path / "made", device="cpu")
        return str(caught.value)

    names(refused(changed(speaker="c"), [spoken(0, PITCHES_HZ, RATE_HZ, speaker="b")]), "'c'", "b")
    names(refused(changed(segment_frames=500), ROWS), "segment_frames", "500")
    names(refused(CONFIG, [ROWS[0]._replace(waveform=ROWS[0].waveform[:99])]), "utterance 0", "4000 Hz")
    names(refused(CONFIG, []), "no utterance")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"upsample_rates": (5, 8)}, "upsample_kernel_sizes"),
        ({"upsample_kernel_sizes": (10, 16, 8)}, "even"),
        ({"resblock_kernel_sizes": (4,)}, "odd"),
        (
            {"resblock_dilation_sizes": ((1, 3), (1, 3))},
            "resblock_kernel_sizes and resblock_dilation_sizes differ in length",
        ),
        ({"upsample_initial_channel": 36}, "8"),
        ({"segment_frames": 1}, "window_samples"),
        ({"discriminator_channels": 33}, "32"),
        ({"steps": 0}, "steps"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(values, found):
    with pytest.raises(ValidationError) as caught:
        changed(**values)
    assert found in str(caught.value)


@pytest.mark.long
def test_dvc_trains_one_on_the_corpus_and_speech_is_made_with_it(tmp_path):
    micro.make_repository(tmp_path)
    small = CONFIG.model_dump(mode="json") | {
        "sample_rate_hz": 16000, "upsample_rates": [5, 8, 16], "upsample_kernel_sizes": [11, 16, 32], "steps": 3,
        "num_mels": 40, "window_samples": 1024, "fit_utterances": 8,
    }  # fmt: skip
    micro.edit(tmp_path / "experiments/vocoder/hifigan-scratch.yaml", small)
    micro.edit(tmp_path / "params.yaml", {"vocoder": "hifigan-scratch"})
    assert "asr" in micro.repro(tmp_path, "asr")
    config = ScratchUnitHiFiGANConfig.model_validate(small)
    vocoder = load_vocoder(config, tmp_path / "artifacts/vocoder", device="cpu")
    (waveform,) = vocoder.synthesize([[0, 1, 2]])
    assert waveform.size > 0
    assert waveform.size % 640 == 0
    assert not (tmp_path / ".work/vocoder").exists()

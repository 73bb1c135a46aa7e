"""k-means over any speech encoder's layer: states as the model's own code gives them, units of an utterance alone."""

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from alignslm.config.speech_kmeans import SpeechKMeansConfig
from alignslm.encoder import load_encoder, prepare_encoder, speech_kmeans
from alignslm.encoder.speech_kmeans import unit_frames
from alignslm.encoder.speech_states import load_states
from alignslm.encoder.waveforms import EncoderError
from tests.messages import names
from tests.test_whisper import SOUNDS, sound
from tests.tiny_whisper import RATE_HZ, write_ctranslate2, write_whisper

CONVOLUTIONAL = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
}


def config_of(folder, **changes):
    values = {
        "kind": "speech-kmeans",
        "weights": {"kind": "folder", "path": str(folder)},
        "layer": 1,
        "normalise_input": False,
        "frames_per_unit": 2,
        "num_units": 8,
        "fit_utterances": 8,
        "fit_frames": 100,
        "seed": 0,
        "dtype": "float32",
        "window_s": 1.0,
        "overlap_s": 0.5,
    }
    return SpeechKMeansConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("published") / "whisper")


def write_convolutional(folder, name):
    settings, model = CONVOLUTIONAL[name]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    made = settings(**sizes, conv_dim=[8] * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
    model(made).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layer", [1, 2])
def test_whispers_states_are_its_own_where_speech_is_as_long_as_it_hears(published, layer):
    model = WhisperForConditionalGeneration.from_pretrained(published)
    waveform = sound(3, 1.0)
    mel = WhisperProcessor.from_pretrained(published)(waveform, sampling_rate=RATE_HZ, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_encoder()(mel.input_features, output_hidden_states=True).hidden_states[layer][0]
    found = load_states(config_of(published, layer=layer), published, device="cpu")(waveform)
    torch.testing.assert_close(found, expected)
    units = unit_frames(config_of(published), lambda _: expected, waveform)
    torch.testing.assert_close(units, torch.stack([(expected[n] + expected[n + 1]) / 2 for n in range(0, 50, 2)]))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_states_of_convolutional_encoders_are_those_of_the_whole_model(tmp_path, name):
    folder = write_convolutional(tmp_path, name)
    waveform = sound(3, 0.8)
    plain = torch.nn.functional.pad(torch.from_numpy(waveform), (40, 40))[None]
    with torch.inference_mode():
        expected = CONVOLUTIONAL[name][1].from_pretrained(folder)(plain, output_hidden_states=True).hidden_states[2][0]
    found = load_states(config_of(folder, layer=2), folder, device="cpu")(waveform)
    assert len(found) == 40
    torch.testing.assert_close(found, expected)


def test_input_is_normalised_where_the_config_says_so(tmp_path):
    folder = write_convolutional(tmp_path, "wav2vec2")
    waveform = sound(3, 0.8)
    states = load_states(config_of(folder, normalise_input=True), folder, device="cpu")
    as_is = load_states(config_of(folder), folder, device="cpu")
    level = ((waveform - waveform.mean()) / waveform.std()).astype(np.float32)
    torch.testing.assert_close(states(waveform), as_is(level), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(states(waveform), states(7 * waveform), rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def fitted(published, tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("encoder"), config_of(published)
    prepare_encoder(config, iter(SOUNDS), folder, device="cpu")
    return load_encoder(config, folder, device="cpu")


def test_units_of_an_utterance_do_not_depend_on_its_neighbours(fitted):
    together = fitted.encode(SOUNDS)
    assert len({tuple(one.units) for one in together}) == len(SOUNDS)
    for waveform, found in zip(SOUNDS, together, strict=True):
        (alone,) = fitted.encode([waveform])
        assert (alone.units.tolist(), alone.durations.tolist()) == (found.units.tolist(), found.durations.tolist())
        assert found.durations.sum() == -(-len(waveform) // 640)  # a frame begun is a frame
        assert (found.units[1:] != found.units[:-1]).all()
        assert found.units.max() < 8


def test_long_speech_is_heard_in_windows_and_every_frame_once(fitted):
    long = sound(9, 3.3)
    frames = fitted.frames(long)
    assert len(frames) == -(-len(long) // 640)
    first, last = fitted.frames(long[:RATE_HZ]), fitted.frames(np.pad(long, (0, -len(long) % 640))[-RATE_HZ:])
    assert frames[:19].tolist() == first[:19].tolist()  # .75 s of the first window of 1 s
    assert frames[-15:].tolist() == last[-15:].tolist()  # the last window overlaps more


def test_either_form_of_whisper_gives_the_same_units(published, fitted, tmp_path):
    pytest.importorskip("ctranslate2")
    other = config_of(write_ctranslate2(tmp_path / "ctranslate2", published))
    (tmp_path / "encoder").mkdir()
    prepare_encoder(other, iter(SOUNDS), tmp_path / "encoder", device="cpu")
    encoder = load_encoder(other, tmp_path / "encoder", device="cpu")
    for one, same in zip(encoder.encode(SOUNDS), fitted.encode(SOUNDS), strict=True):
        assert one.units.tolist() == same.units.tolist()
    assert encoder.contract.revision != fitted.contract.revision  # of other files


def test_frames_are_drawn_from_all_utterances_alike_and_few_are_held(published, monkeypatch):
    held, smallest = [], speech_kmeans._smallest
    monkeypatch.setattr(speech_kmeans, "_smallest", lambda rows, *more: held.append(len(rows)) or smallest(rows, *more))
    utterances = (np.full((50, 1), number, np.float32) for number in range(100))
    drawn = speech_kmeans._drawn(config_of(published, fit_frames=200), utterances)
    assert drawn.shape == (200, 1)
    assert max(held) <= 2 * 200 + 50  # of 5000
    first = int((drawn < 50).sum())  # binomial of 200 at one half: 7 is one standard deviation
    assert abs(first - 100) < 5 * 7
    assert len(speech_kmeans._drawn(config_of(published), [np.zeros((90, 1), np.float32)])) == 90


def test_what_does_not_fit_the_checkpoint(published, tmp_path):
    with pytest.raises(EncoderError, match="2 layers"):
        load_states(config_of(published, layer=3), published, device="cpu")
    with pytest.raises(EncoderError) as error:
        load_states(config_of(published, window_s=2.0), published, device="cpu")
    names(error.value, "1 s", "window_s")
    with pytest.raises(EncoderError, match="normalise_input"):
        load_states(config_of(published, normalise_input=True), published, device="cpu")
    with pytest.raises(EncoderError, match="25 frames"):
        prepare_encoder(config_of(published, num_units=26), [sound(3, 1.0)], tmp_path, device="cpu")

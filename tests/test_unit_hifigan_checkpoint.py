"""Published unit HiFi-GAN files that cannot be used are refused, each with its reason."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from alignslm.config.loading import load_experiment
from alignslm.config.problems import ConfigError
from alignslm.config.unit_hifigan import UnitHiFiGANConfig
from alignslm.integrity import DamagedError
from alignslm.listing import EncodingError
from alignslm.vocoder import VocoderError, load_vocoder, prepare_vocoder
from tests.messages import names
from tests.sample_experiment import edit, write_experiment
from tests.tiny_hifigan import CONTRACT, SETTINGS, SEVERAL, config_of, contract_of, random_generator, write_checkpoint

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
NO_DURATIONS = "dur_predictor_params"  # what a checkpoint for deduplicated units has


def refusal(config, tmp_path, contract=CONTRACT):
    with pytest.raises(VocoderError) as caught:
        prepare_vocoder(config, [], contract, tmp_path / "vocoder")
    assert not (tmp_path / "vocoder").exists()
    return str(caught.value).replace(str(tmp_path), "")


def settings_refused(tmp_path, **changes):
    write_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, **changes}))
    return refusal(config_of(tmp_path), tmp_path)


def test_deduplicated_units_need_a_duration_predictor(tmp_path):
    write_checkpoint(tmp_path, dur_predictor_params=None)
    found = refusal(config_of(tmp_path), tmp_path)
    names(found, "/config.json", NO_DURATIONS)


def test_everything_that_does_not_fit_the_units_is_told_at_once(tmp_path):
    write_checkpoint(tmp_path, dur_predictor_params=None)
    contract = CONTRACT.model_copy(update={"num_units": 500, "frame_rate_hz": 50.0, "layer": 9, "encoder": "hubert"})
    found = refusal(config_of(tmp_path, layer=11, sample_rate_hz=22050), tmp_path, contract)
    names(
        found,
        "/config.json",
        "20",
        "500",
        "25",
        "units/s",
        "16000",
        "640",
        "50",
        "11",
        "9",
        "sample_rate_hz",
        "22050",
        NO_DURATIONS,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"f0": True},
            (("f0",)),
        ),
        (
            {"multispkr": "_", "embedder_params": {"dim": 256}},
            ("speaker", "embedder_params", "multispkr"),
        ),
        ({"upsample_rates": [5, 4]}, ("2", "upsample_rates", "5", "upsample_kernel_sizes")),
        ({"resblock_kernel_sizes": [3]}, ("resblock_kernel_sizes", "resblock_dilation_sizes")),
        ({"resblock_kernel_sizes": [3, 4]}, ("resblock_kernel_sizes", "3", "4")),
        ({"upsample_initial_channel": 40}, ("conv_pre.weight", "settings", "weights")),
        ({"embedding_dim": 24}, ("dict.weight", "24", "12", "settings", "weights")),
    ],
)
def test_networks_that_cannot_speak_from_units_alone(tmp_path, changes, message):
    names(settings_refused(tmp_path, **changes), *message)


def test_a_settings_file_that_is_something_else(tmp_path):
    found = settings_refused(tmp_path, num_embeddings=None, upsample_rates="5,4")
    names(found, "/config.json", "HiFi-GAN", "num_embeddings")
    assert "; upsample_rates: " in found
    (tmp_path / "config.json").write_text("<html>")
    names(refusal(config_of(tmp_path), tmp_path), "settings", "weights", "/config.json", "JSON", "1", "0")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"speaker": None, "style": 0},
            ("lj, ex01, vctk_p225", "3", "speaker"),
        ),
        (
            {"speaker": "ex1", "style": 0},
            ("'ex1'", "'ex01'", "lj, ex01, vctk_p225"),
        ),
        ({"speaker": 3, "style": 0}, ("speaker 3", "[0, 3)", "lj, ex01, vctk_p225")),
        ({"speaker": 0, "style": "angry"}, ("style", "'angry'", "read, whisper")),
        (
            {"speaker": "lj", "speakers": None, "style": 0},
            ("speakers", "'lj'", "[0, 3)"),
        ),
    ],
)
def test_voices_are_named(tmp_path, keys, message):
    settings = write_checkpoint(tmp_path, **SEVERAL)
    names(refusal(config_of(tmp_path, **keys), tmp_path, contract_of(settings)), *message)


def test_a_single_voice_takes_no_speaker(tmp_path):
    write_checkpoint(tmp_path)
    message = "speaker is 'lj', but the checkpoint has only one speaker: set speaker: null"
    assert refusal(config_of(tmp_path, speaker="lj"), tmp_path) == message


def test_more_names_than_voices(tmp_path):
    write_checkpoint(tmp_path, **SEVERAL)
    (tmp_path / "speakers.txt").write_text("a\nb\nc\nd\n")
    names(refusal(config_of(tmp_path, speaker=0, style=0), tmp_path), "4", "speaker", "3")


def test_names_are_numbered_by_their_lines_as_textless_does(tmp_path):
    settings = write_checkpoint(tmp_path, **SEVERAL)
    (tmp_path / "speakers.txt").write_bytes(b"lj\r\n\r\nvctk_p225\r\n\r\n")  # textless: readlines(), so three of them
    config = config_of(tmp_path, speaker="vctk_p225", style=0)
    prepare_vocoder(config, [], contract_of(settings), tmp_path / "made")
    assert json.loads((tmp_path / "made" / "vocoder.json").read_text())["speaker"] == 2
    names(refusal(config_of(tmp_path, speaker="", style=0), tmp_path, contract_of(settings)), "lj, vctk_p225")
    (tmp_path / "speakers.txt").write_bytes("lj\nzoë\n".encode("latin-1"))
    with pytest.raises(EncodingError) as raised:
        prepare_vocoder(config, [], contract_of(settings), tmp_path / "again")
    names(raised.value, "line 2", "speakers.txt", "UTF-8")


class Program:
    def __reduce__(self):
        return (print, ("this would run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_is_a_program_does_not_run(tmp_path, capsys):
    write_checkpoint(tmp_path)
    torch.save({"generator": random_generator(SETTINGS), "extra": Program()}, tmp_path / "generator.pt")
    found = refusal(config_of(tmp_path), tmp_path)
    names(found, "/generator.pt", "tensors", "Weights only load failed")
    (tmp_path / "generator.pt").write_bytes(pickle.dumps(Program()))
    refusal(config_of(tmp_path), tmp_path)
    (tmp_path / "generator.pt").write_text("<html>not found</html>")
    refusal(config_of(tmp_path), tmp_path)
    assert "this would run" not in capsys.readouterr().out


def test_a_truncated_checkpoint_is_told(tmp_path):
    write_checkpoint(tmp_path)
    whole = (tmp_path / "generator.pt").read_bytes()
    (tmp_path / "generator.pt").write_bytes(whole[: len(whole) // 2])
    assert "is not a torch file of tensors only" in refusal(config_of(tmp_path), tmp_path)


def test_a_torch_file_of_something_else(tmp_path):
    write_checkpoint(tmp_path)
    torch.save({"model": {}, "optimizer": {}}, tmp_path / "generator.pt")
    names(refusal(config_of(tmp_path), tmp_path), "model, optimizer", "/generator.pt", "HiFi-GAN")


def test_weights_of_another_checkpoint(tmp_path):
    write_checkpoint(tmp_path)
    state = random_generator({**SETTINGS, "num_embeddings": 30})
    del state["conv_post.bias"]
    state["f0_quant_embed.weight"] = torch.zeros(3, 4)
    torch.save({"generator": state}, tmp_path / "generator.pt")
    names(
        refusal(config_of(tmp_path), tmp_path),
        "weights",
        "settings",
        "/generator.pt",
        "conv_post.bias",
        "f0_quant_embed.weight",
        "dict.weight",
        "30",
        "12",
        "20",
        "3",
    )


def test_a_folder_may_stand_for_the_one_file_in_it(tmp_path):
    write_checkpoint(tmp_path / "published")
    place = {"kind": "folder", "path": str(tmp_path / "published")}
    config = config_of(tmp_path / "published", weights=place, settings=place)
    prepare_vocoder(config, [], CONTRACT, tmp_path / "vocoder")
    (tmp_path / "published/other.pt").write_bytes(b"")
    names(refusal(config, tmp_path / "again"), "/published", "2", "generator.pt", "other.pt")


def test_nothing_prepared(tmp_path):
    config = UnitHiFiGANConfig.model_validate_json(config_of(tmp_path).model_dump_json())
    with pytest.raises(DamagedError) as raised:
        load_vocoder(config, tmp_path, device="cpu")
    names(raised.value, tmp_path, "vocoder.json", "dvc repro")


def chosen_together(root, encoder, vocoder):
    """Name two choices of this repository in a small experiment, and return the conflicts between them."""
    write_experiment(root)
    for kind, before, choice in (("encoder", "mfcc", encoder), ("vocoder", "conv", vocoder)):
        shutil.copy(EXPERIMENTS / kind / f"{choice}.yaml", root / "experiments" / kind)
        edit(root / "params.yaml", (f"{kind}: {before}\n", f"{kind}: {choice}\n"))
    try:
        load_experiment(root)
    except ConfigError as error:
        return [f"{fault.key}: {fault.message}" for fault in error.faults if fault.file.endswith(f"{vocoder}.yaml")]
    return []


def test_a_vocoder_of_other_units_is_told_before_anything_runs(tmp_path):
    lj, mine, theirs = "hifigan-lj-mhubert-25hz", "mhubert-25hz-km500", "hubert-base-ls960-l9-km500"
    assert chosen_together(tmp_path / "a", mine, lj) == []
    layer, codebook = chosen_together(tmp_path / "b", theirs, lj)
    names(layer, "layer", lj, "11", theirs, "9")
    names(codebook, "codebook_file_sha256", lj, theirs)
    names(codebook, "03cc04a9c24fec4285e73e709c485756d8f116aa8e724eac555de6a7cf8d28ad")
    names(codebook, "4450dcbc90aa7d0553306a4b0fafef35c9b3c840468f02969273dfbb9db89a23")
    names(chosen_together(tmp_path / "c", "mfcc-kmeans", lj)[0], lj, "11", "mfcc-kmeans")


def test_a_vocoder_to_be_trained_must_upsample_to_a_unit(tmp_path):
    assert chosen_together(tmp_path / "a", "mfcc-kmeans", "hifigan-scratch") == []
    edit(tmp_path / "a/experiments/encoder/mfcc-kmeans.yaml", ("frame_rate_hz: 25.0", "frame_rate_hz: 50.0"))
    with pytest.raises(ConfigError) as caught:
        load_experiment(tmp_path / "a")
    names(str(caught.value), "hifigan-scratch.yaml", "upsample_rates", "640", "320", "mfcc-kmeans")

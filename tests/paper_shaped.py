"""The paper's own preset at tiny size: shipped choices, every checkpoint replaced by a tiny one of the same format.

The preset `twist-1.3b` and the files it names are used as they are; what is edited is where weights lie, the shapes
that follow from them, and how much of everything is made. What a choice asks of the machine (LIBRISPEECH,
ALIGNSLM_MODELS) is given as a user would give it.
"""

from pathlib import Path

import soundfile
from ruamel.yaml import YAML

from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.presets import apply_preset
from tests.micro import copy_project, edit, start_history
from tests.tiny_hifigan import write_checkpoint
from tests.tiny_hubert import tiny_hubert
from tests.tiny_judge import write_judge
from tests.tiny_librispeech import write_librispeech
from tests.tiny_lm import tiny_slam, tiny_twist
from tests.tiny_slm21 import tiny_slm21
from tests.tiny_whisper import MAX_TOKENS, write_whisper

NUM_UNITS = 20
UTTERANCES = {
    "train-clean-100": 12,
    "train-clean-360": 4,
    "train-other-500": 4,
    "dev-clean": 10,
    "dev-other": 2,
    "test-clean": 4,
}
STEPS = {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.001}
TRAINERS = {
    "dpo-paper": {**STEPS, "max_steps": 4, "min_pairs": 2, "num_evals": 2},
    "sft-paper": {**STEPS, "max_steps": 4, "min_pairs": 2, "num_evals": 2},
    "ntp-paper": {**STEPS, "max_steps": 4, "warmup_steps": 1},
}
WRITTEN_BY_WHISPER = (  # what the tiny recogniser makes of speech, for judges that tell such texts apart
    "wlwlwlllllll wlllllllllll wlwlhehewhehehehehehe boa' whehehehehehehellll llllhehehehellll oaoaoaggoaoagoaoaoal "
    ",he,he,he,he boa, ,gB t kswg tg the,g ,he,heBlll khew t theny the ,ggoagoah j jhejwhehe,heilll woagoa"
)
ROUND = {
    "sampled_from": "base",
    "min_chosen_score": 3.0,
    "max_rejected_score": 2.0,
    "min_margin": 0.0,
    "max_auto_bleu": 1.0,
}
PARAMS = {
    "mos": "dnsmos-quick",
    "heldout_judge": "mistral-7b-v0.3",
    "benchmarks": {"swuggy": "swuggy"},
    "prompts": {
        "train": 14,
        "valid": 10,
        "dev": 1,
        "test": 3,
        "cut_at": "time",
        "max_duration_s": 3.0,
        "min_units": 10,
    },
    "sampling": {"num_continuations": 3, "temperature": 0.8, "top_p": 0.95, "max_new_units": 40},
    "preferences": {"r1": ROUND},
    "checkpoints": {
        "r1": {"init_from": "base", "train_on": "pairs/r1", "trainer": "dpo-paper", "warmup_steps": 1},
        "sft": {"init_from": "base", "train_on": "pairs/r1", "trainer": "sft-paper", "warmup_steps": 1},
        "ntp": {"init_from": "base", "train_on": "units", "trainer": "ntp-paper"},
    },
    "systems": {
        "base": {"source": "checkpoints/base"},
        "r1": {"source": "checkpoints/r1"},
        "ground-truth": {"source": "corpus/utterances"},
    },
}


def folder(path: Path) -> dict[str, str]:
    return {"kind": "folder", "path": str(path)}


def write_models(models: Path) -> HubertEncoderConfig:
    """Write corpus, benchmark and every checkpoint below `models`; return the encoder's choice, which others follow."""
    write_librispeech(models / "LibriSpeech", UTTERANCES)
    tiny_slm21(models / "sLM21-dataset", voices=("en-us",))
    heard = sorted((models / "LibriSpeech" / "train-clean-100").rglob("*.flac"))[:4]
    encoder = tiny_hubert(models / "mhubert", [soundfile.read(file, dtype="float32")[0] for file in heard])
    tiny_twist(models / "TWIST-1.3B", num_units=NUM_UNITS, positions=512)
    tiny_slam(models / "slam", num_units=NUM_UNITS, positions=512)
    write_checkpoint(models / "hifigan")
    write_whisper(models / "whisper")
    write_judge(models / "judge", seed=0, about=WRITTEN_BY_WHISPER)
    write_judge(models / "heldout", seed=2, about=WRITTEN_BY_WHISPER)
    return encoder


def choices(models: Path, encoder: HubertEncoderConfig) -> dict[str, dict]:
    """Return what changes in each file of experiments/."""
    shapes = encoder.model_dump(mode="json", include={"weights", "layer", "codebook", "num_units"})
    codebook = shapes["codebook"]["sha256"]
    units = {"num_units": NUM_UNITS, "layer": encoder.layer, "codebook_file_sha256": codebook}
    answers = {"temperature": 0.0, "max_tokens": 8, "num_votes": 1, "seed": 0}
    voice = {"layer": encoder.layer, "codebook_file_sha256": codebook}
    hifigan = models / "hifigan"
    sources = {"weights": folder(hifigan / "generator.pt"), "settings": folder(hifigan / "config.json")}
    accepted = {"min_auc": 0}  # random weights guess
    judge = {**accepted, "rubric": "relevance-digit", "dtype": "float32", "score": {"mode": "generate", **answers}}
    server = {
        **accepted,
        "rubric": "relevance-digit",
        "model": str(models / "judge"),
        "decoding": answers,
        "concurrency": 2,
    }
    return {
        "encoder/mhubert-25hz-km500": shapes,
        "lm/twist-1.3b": {"units": units},
        "lm/slam": {"units": units, "weights": folder(models / "slam")},
        "vocoder/hifigan-lj-mhubert-25hz": {**sources, **voice},
        "asr/whisper-large-v2": {
            "weights": folder(models / "whisper"),
            "dtype": "float32",
            "max_new_tokens": MAX_TOKENS,
        },
        "judge/mistral-7b-generate": {**judge, "weights": folder(models / "judge")},
        "judge/mistral-7b-v0.3": {
            **accepted,
            "weights": folder(models / "heldout"),
            "dtype": "float32",
            "min_digit_mass": 0,
        },
        "judge/local-server": server,
        "benchmark/swuggy": {"data": folder(models / "sLM21-dataset")},
        "selector/thresholds-paper": {"min_words": 0},
        **{f"trainer/{name}": changes for name, changes in TRAINERS.items()},
    }


def change(path: Path, changes: dict) -> None:
    """Replace values of a YAML file; the trained-on units of a model keep what is not named."""
    units = YAML(typ="safe").load(path.read_text()).get("units", {})
    edit(path, {key: {**units, **value} if key == "units" else value for key, value in changes.items()})


def make_repository(root: Path, models: Path) -> dict[str, str]:
    """Make the repository and its models; return the variables a run needs in its environment."""
    copy_project(root)
    for name, changes in choices(models, write_models(models)).items():
        change(root / "experiments" / f"{name}.yaml", changes)
    apply_preset("twist-1.3b", root)
    edit(root / "params.yaml", PARAMS)
    start_history(root)
    return {
        "LIBRISPEECH": str(models / "LibriSpeech"),
        "ALIGNSLM_MODELS": str(models),
        "ALIGNSLM_CACHE": str(models / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": "",
    }

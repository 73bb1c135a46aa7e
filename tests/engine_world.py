"""What comes before sampling in round 1 and before evaluation, with models of almost no size."""

from pathlib import Path

import numpy as np
import polars as pl
from ruamel.yaml import YAML

from alignslm import tables
from alignslm.asr import prepare_asr
from alignslm.audio import encode_flac
from alignslm.config.experiment import Experiment
from alignslm.config.loading import load_experiment
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.judge import JudgeInput, prepare_judge
from alignslm.lm.checkpoint import save_lm
from alignslm.provenance import UnitContract
from alignslm.storyworld.corpus import story_texts
from alignslm.vocoder import VocoderExample, prepare_vocoder
from tests.micro import list_outside
from tests.sample_experiment import edit, write_experiment
from tests.test_benchmarks import items
from tests.tiny_lm import NUM_UNITS, VOCABULARY, tiny_lm

NUM_PROMPTS = 16
SPLITS = ("train", "test", "train", "test", "valid")
RATE_HZ = 16000
UTTERANCE_S = 1.5
SMALL = {
    "encoder/mfcc": {"num_units": NUM_UNITS, "fit_utterances": 8},
    "vocoder/conv": {"steps": 2, "channels": 8},
    "asr/ctc": {"steps": 2, "channels": 8, "batch_size": 2},
    "judge/story": {
        "steps": 100,
        "batch_size": 16,
        "learning_rate": 2e-2,
        # So small a judge hardly tells stories apart; its perplexities differ all the same.
        "calibration": {"min_word_logprob": -6, "ground_truth_score": 3.002, "shuffled_score": 2.998},
    },
}


def make_world(root: Path) -> Path:
    """Write the sample experiment with one round, and what its stages start from: speech, prompts, every model."""
    write_experiment(root)
    for choice, changes in SMALL.items():
        edit_yaml(root / "experiments" / f"{choice}.yaml", changes)
    edit(
        root / "params.yaml",
        ("judge: story  ", "judge: ngram  "),
        ("heldout_judge: ngram", "heldout_judge: story"),
        (
            "num_continuations: 5, temperature: 0.8, top_p: 0.95, max_new_units: 160",
            "num_continuations: 3, temperature: 1, top_p: 1, max_new_units: 9",
        ),
        ("  # harder\n  r2: {", "  # harder\n  # r2: {"),
        ("  r2: {init_from", "  # r2: {init_from"),
        ("  r2: {source", "  # r2: {source"),
    )
    experiment, artifacts = load_experiment(root), root / "artifacts"
    contract = _write_tables(experiment, artifacts)
    for name, seed in (("base", 0), ("r1", 1)):
        save_lm(tiny_lm(seed).model, VOCABULARY, contract, artifacts / "checkpoints" / name)
    _prepare_models(experiment, contract, artifacts)
    list_outside(root)
    return root


def _write_tables(experiment: Experiment, artifacts: Path) -> UnitContract:
    rng = np.random.default_rng(0)
    spoken = [sound(rng) for _ in range(NUM_PROMPTS)]
    tables.write_shards([utterances(spoken)], tables.UTTERANCES, artifacts / "corpus/utterances", part_rows=4)
    prepare_encoder(experiment.encoder, spoken, artifacts / "encoder")
    contract = load_encoder(experiment.encoder, artifacts / "encoder", device="cpu").contract
    tables.write(prompts(rng), tables.PROMPTS, artifacts / "prompts.parquet", contract)
    tables.write_shards([items().sort("item_id")], tables.ITEMS, artifacts / "benchmarks/swuggy", contract)
    return contract


def _prepare_models(experiment: Experiment, contract: UnitContract, artifacts: Path) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.normal(0, 0.1, RATE_HZ).astype(np.float32) for _ in range(4)]
    units = [(np.arange(5) + n, np.full(5, 5)) for n in range(4)]
    pairs = [VocoderExample(*pair, waveform) for pair, waveform in zip(units, noise, strict=True)]
    prepare_vocoder(experiment.vocoder, pairs, contract, artifacts / "vocoder")
    prepare_asr(experiment.asr, [(waveform, "a b") for waveform in noise], artifacts / "asr")
    texts = [
        JudgeInput(*row[1:]) for row in story_texts(experiment.corpus.model_copy(update={"num_texts": 1000})).rows()
    ]
    for choice, config in (("ngram", experiment.judge), ("story", experiment.heldout_judge)):
        prepare_judge(config, texts, artifacts / "judges" / choice, device="cpu")


def sound(rng: np.random.Generator) -> np.ndarray:
    """Return tones of a tenth of a second each, in noise."""
    step = RATE_HZ // 10
    hz = rng.uniform(100, 3000, round(10 * UTTERANCE_S)).repeat(step)
    times = np.arange(hz.size) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * hz * times) + rng.normal(0, 0.01, hz.size)).astype(np.float32)


def utterances(spoken: list[np.ndarray]) -> pl.DataFrame:
    rows = [
        {
            "utterance_id": f"u{number:02d}",
            "split": SPLITS[number % 5],
            "speaker_id": "s",
            "prompt_end_s": 1.0,
            "num_samples": len(waveform),
            "sample_rate_hz": RATE_HZ,
            "audio": {"bytes": encode_flac(waveform, RATE_HZ), "path": f"u{number:02d}.flac"},
        }
        for number, waveform in enumerate(spoken)
    ]
    return pl.DataFrame(rows, schema=dict(tables.UTTERANCES.schema))


def prompts(rng: np.random.Generator) -> pl.DataFrame:
    """Return a prompt an utterance; every third has no text until it is transcribed."""
    rows = [
        {
            "prompt_id": f"p{number:02d}",
            "utterance_id": f"u{number:02d}",
            "split": SPLITS[number % 5],
            "end_s": 1.0,
            "num_units": 3 + number % 5,
            "units": rng.integers(0, NUM_UNITS, 3 + number % 5).tolist(),
            "continuation_units": [7, 8],
            "prompt_text": None if number % 3 == 2 else "kate finds a blue boat on the beach",
            "continuation_text": "she rinses the boat",
        }
        for number in range(NUM_PROMPTS)
    ]
    return pl.DataFrame(rows, schema=dict(tables.PROMPTS.schema))


def edit_yaml(path: Path, changes: dict[str, object]) -> None:
    yaml = YAML()
    content = yaml.load(path.read_text())
    content.update(changes)
    with path.open("w") as stream:
        yaml.dump(content, stream)

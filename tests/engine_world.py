"""A round's inputs, with models of almost no size."""

from pathlib import Path

import numpy as np
import polars as pl
from ruamel.yaml import YAML

from alignslm import tables
from alignslm.asr import prepare_asr
from alignslm.config.loading import load_experiment
from alignslm.judge import Story, prepare_judge
from alignslm.lm.checkpoint import save_lm
from alignslm.storyworld.corpus import story_texts
from alignslm.vocoder import SpokenUnits, prepare_vocoder
from tests.sample_experiment import edit, write_experiment
from tests.tiny_lm import CONTRACT, NUM_UNITS, VOCABULARY, tiny_lm

NUM_PROMPTS = 9
SMALL = {"vocoder/conv": {"steps": 2, "channels": 8}, "asr/ctc": {"steps": 2, "channels": 8, "batch_size": 2}}


def make_world(root: Path) -> Path:
    """Write the sample experiment and what comes before sampling in round 1: prompts and every model."""
    write_experiment(root)
    for choice, changes in SMALL.items():
        edit_yaml(root / "experiments" / f"{choice}.yaml", changes)
    edit(
        root / "params.yaml",
        ("judge: story  ", "judge: ngram  "),
        ("heldout_judge: ngram", "heldout_judge: story"),
        ("draws: 5, temperature: 0.8, top_p: 0.95, max_units: 160", "draws: 3, temperature: 1, top_p: 1, max_units: 9"),
    )  # fmt: skip
    experiment, artifacts, rng = load_experiment(root), root / "artifacts", np.random.default_rng(0)
    tables.write(prompts(rng), tables.PROMPTS, artifacts / "prompts.parquet", CONTRACT)
    tables.write(nothing(tables.TRANSCRIPTS), tables.TRANSCRIPTS, artifacts / "prompt_transcripts.parquet")
    lm = tiny_lm()
    save_lm(lm.model, VOCABULARY, CONTRACT, artifacts / "checkpoints" / "base")
    noise = [rng.normal(0, 0.1, 16000).astype(np.float32) for _ in range(4)]
    units = [(np.arange(5) + n, np.full(5, 5)) for n in range(4)]
    spoken = [SpokenUnits(*pair, waveform) for pair, waveform in zip(units, noise, strict=True)]
    prepare_vocoder(experiment.vocoder, spoken, CONTRACT, artifacts / "vocoder")
    prepare_asr(experiment.asr, [(waveform, "a b") for waveform in noise], artifacts / "asr")
    texts = [Story(*row[1:]) for row in story_texts(experiment.corpus.model_copy(update={"texts": 200})).rows()]
    prepare_judge(experiment.judge, texts, artifacts / "judges" / "ngram", device="cpu")
    return root


def prompts(rng: np.random.Generator) -> pl.DataFrame:
    rows = [
        {
            "prompt_id": f"p{number}",
            "utterance_id": f"u{number}",
            "split": "valid" if number % 4 == 3 else "train",
            "end_s": 1.0,
            "num_units": 3 + number % 5,
            "units": rng.integers(0, NUM_UNITS, 3 + number % 5).tolist(),
            "continuation_units": [7, 8],
            "prompt_text": "kate finds a blue boat on the beach",
            "continuation_text": "she rinses the boat",
        }
        for number in range(NUM_PROMPTS)
    ]
    return pl.DataFrame(rows, schema=dict(tables.PROMPTS.schema))


def nothing(table: tables.Table) -> pl.DataFrame:
    return pl.DataFrame(schema=dict(table.schema))


def edit_yaml(path: Path, changes: dict[str, object]) -> None:
    yaml = YAML()
    content = yaml.load(path.read_text())
    content.update(changes)
    with path.open("w") as stream:
        yaml.dump(content, stream)

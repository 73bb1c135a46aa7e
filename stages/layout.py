"""Where every artifact lies. dvc.yaml names the same paths; a test compares the two."""

from pathlib import Path

ARTIFACTS = Path("artifacts")
UTTERANCES = ARTIFACTS / "corpus" / "utterances"
CORPUS_ACCOUNT = ARTIFACTS / "corpus" / "account.json"
TEXTS = ARTIFACTS / "corpus" / "texts.parquet"
ENCODER = ARTIFACTS / "encoder"
UNITS = ARTIFACTS / "units.parquet"
PROMPTS = ARTIFACTS / "prompts.parquet"
PROMPT_TRANSCRIPTS = ARTIFACTS / "prompt_transcripts.parquet"
PROMPT_TABLES = (PROMPTS, PROMPT_TRANSCRIPTS)
VOCODER = ARTIFACTS / "vocoder"
ASR = ARTIFACTS / "asr"
MOS = ARTIFACTS / "mos"
REPORTS = Path("reports")


def own_code(choice: str) -> Path:
    """Return the folder with the file of code/ that a config such as judge/ngram names."""
    return ARTIFACTS / "code" / choice


def judge(choice: str) -> Path:
    """Return the folder of a prepared judge."""
    return ARTIFACTS / "judges" / choice


def checkpoint(name: str) -> Path:
    """Return a model's folder: base, ntp, sft or a round."""
    return ARTIFACTS / "checkpoints" / name


def training(name: str) -> Path:
    """Return the training log of a checkpoint."""
    return ARTIFACTS / "training" / f"{name}.json"


def table(kind: str, name: str) -> Path:
    """Return a table of one round: continuations, transcripts, scores, replies, pairs or rejections."""
    return ARTIFACTS / kind / f"{name}.parquet"


def speech(name: str) -> Path:
    """Return the folder of a round's spoken continuations."""
    return ARTIFACTS / "speech" / name


def account(name: str) -> Path:
    """Return the counts of a round's pairs."""
    return ARTIFACTS / "accounts" / f"{name}.json"


def benchmark(name: str) -> Path:
    """Return the folder of a benchmark's items."""
    return ARTIFACTS / "benchmarks" / name


def sample(model: str) -> Path:
    """Return the folder of a model's continuations of the evaluation prompts."""
    return ARTIFACTS / "samples" / model


def mos(system: str) -> Path:
    """Return the predicted scores of one system's clips."""
    return MOS / f"{system}.parquet"


def published(name: str) -> Path:
    """Return the receipt of a round: what was pushed where, or that nothing was."""
    return ARTIFACTS / "published" / f"{name}.json"


def evaluation(model: str) -> Path:
    """Return the folder of a model's evaluation tables."""
    return ARTIFACTS / "eval" / model

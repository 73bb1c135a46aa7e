"""A whole experiment at the smallest size that talks, made by the stages themselves in one process, without DVC."""

import contextlib
import io
import shutil
from pathlib import Path

import stages.asr
import stages.base
import stages.check
import stages.corpus
import stages.encoder
import stages.judge
import stages.own_code
import stages.prompt_transcripts
import stages.prompts
import stages.samples
import stages.units
import stages.vocoder
from tests.micro import CHOICES, PARAMS, copy_project, edit

SMALLER = {
    "corpus/storyworld": {"stories": {"train": 30, "valid": 3, "dev": 1, "test": 2}},
    "encoder/mfcc-kmeans": {"num_units": 50, "fit_utterances": 10},
    "lm/llama-tiny": {"max_steps": 25, "warmup_steps": 4},
    "vocoder/conv-griffinlim": {"fit_utterances": 24, "steps": 40},
    "asr/char-ctc": {"fit_utterances": 24, "steps": 40},
}
OWN = ("encoder/mfcc-kmeans", "vocoder/conv-griffinlim", "asr/char-ctc")
PROMPTS = {"train": 4, "valid": 2, "dev": 0, "test": 2}


def build(root: Path) -> Path:
    """Make base model, encoder, vocoder, recogniser and the base model's samples below `root`."""
    copy_project(root)
    for choice, changes in {**CHOICES, **SMALLER}.items():
        edit(root / "experiments" / f"{choice}.yaml", {**CHOICES.get(choice, {}), **changes})
    shutil.copy(root / "experiments/judge/ngram.yaml", root / "experiments/judge/trigram.yaml")
    edit(root / "params.yaml", {**PARAMS, "prompts": {**PARAMS["prompts"], **PROMPTS}})
    edit(root / "experiments/execution.yaml", {"num_workers": 1})
    with contextlib.chdir(root), contextlib.redirect_stdout(io.StringIO()):
        stages.check.main()
        judge = str(PARAMS["judge"])
        for name in (*OWN, f"judge/{judge}"):
            stages.own_code.main(name)
        for name in ("corpus", "encoder", "units", "prompts", "base", "vocoder", "asr", "prompt_transcripts"):
            getattr(stages, name).main()
        stages.samples.main("base")
        stages.judge.main(judge)
    return root

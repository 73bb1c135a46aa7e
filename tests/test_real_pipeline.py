"""The preset `real-small` at micro size, on speech that the script of its page makes, to the report."""

import re
import sys

import polars as pl
import pytest

from alignslm import tables
from alignslm.config.presets import apply_preset
from tests.micro import CHOICES, ROOT, WARM, copy_project, edit, loopback_only, run, stages_of, start_history

pytestmark = pytest.mark.real
STORIES = '{"train": 60, "valid": 10, "test": 10}'
SMALL = {
    "execution": {"num_workers": 1},
    "encoder/whisper-base-l6-km100": {"num_units": 50, "fit_utterances": 40},
    "lm/llama-tiny-full": CHOICES["lm/llama-tiny"],
    "vocoder/conv-griffinlim-full": {**CHOICES["vocoder/conv-griffinlim"], "steps": 200},
    "mos/dnsmos-quick": {"max_clips": 1},
    "trainer/dpo-nll": CHOICES["trainer/dpo-nll"],
    "trainer/sft": CHOICES["trainer/sft"],
    "judge/smollm2-135m": {"auc_texts": 30},
    "judge/gemma3-270m": {"auc_texts": 30},
}
PARAMS = {
    "prompts": {"train": 12, "valid": 4, "dev": 0, "test": 6, "cut_at": "time", "max_duration_s": 2.5, "min_units": 5},
    "sampling": {"num_continuations": 3, "temperature": 0.8, "top_p": 0.95, "max_new_units": 40},
}


def test_real_small_runs_offline_from_a_voice_to_the_report(tmp_path):
    page, root, record = (ROOT / "docs/real.md").read_text(encoding="utf-8"), tmp_path / "project", tmp_path / "tries"
    script = re.sub(r"STORIES = .*", f"STORIES = {STORIES}", re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    copy_project(root)
    run(root, sys.executable, "-c", script)
    apply_preset("real-small", root)
    for choice, changes in SMALL.items():
        edit(root / "experiments" / f"{choice}.yaml", changes)
    edit(root / "params.yaml", PARAMS)
    start_history(root)
    record.touch()
    variables = {"SPEECH_FOLDER": str(root / "speech"), **loopback_only(record)}
    assert "report" in stages_of(run(root, *WARM, "dvc", "repro", variables=variables))
    assert record.read_text() == ""
    heard = tables.read(tables.TRANSCRIPTS, root / "artifacts/prompt_transcripts.parquet")
    assert heard.filter(pl.col("status") == "ok").height > 0.9 * heard.height  # a neural voice is understood
    scores = tables.read(tables.SCORES, root / "artifacts/scores/r1.parquet")
    assert scores.filter(pl.col("status") == "ok")["ppl"].is_finite().all()
    assert tables.read(tables.PAIRS, root / "artifacts/pairs/r1.parquet").height >= 2

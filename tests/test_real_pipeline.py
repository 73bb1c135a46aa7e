"""The presets `real-small` and `any-language` at micro size, on speech of a neural voice and of a German one."""

import re
import sys

import numpy as np
import polars as pl
import pytest
import soundfile

from alignslm import tables
from alignslm.config.presets import apply_preset
from alignslm.storyworld.espeak import synthesize
from tests.micro import CHOICES, ROOT, WARM, copy_project, edit, loopback_only, run, stages_of, start_history

pytestmark = pytest.mark.real
STORIES = '{"train": 60, "valid": 10, "test": 10}'
SMALL = {
    "execution": {"num_workers": 1},
    "encoder/whisper-base-l4-km200": {"num_units": 50, "fit_utterances": 40},
    "encoder/whisper-base-l4-km100": {"num_units": 50, "fit_utterances": 40},
    "judge/story-lm-narrow": {"steps": 40},
    "lm/llama-tiny-full": CHOICES["lm/llama-tiny"],
    "vocoder/conv-griffinlim-voice": {**CHOICES["vocoder/conv-griffinlim"], "steps": 200},
    "mos/dnsmos-quick": {"max_clips": 1},
    "trainer/dpo-nll": CHOICES["trainer/dpo-nll"],
    "trainer/sft": CHOICES["trainer/sft"],
    "judge/smollm2-135m": {"auc_texts": 30},
    "judge/gemma3-270m": {"auc_texts": 30},
}
TINY_HIFIGAN = {
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "discriminator_channels": 32,
    "periods": [3],
    "scales": 1,
    "batch_size": 4,
    "steps": 120,
    "save_steps": 60,
    "learning_rate": 0.002,
}
PARAMS = {
    "prompts": {"train": 12, "valid": 4, "dev": 0, "test": 6, "cut_at": "time", "max_duration_s": 2.5, "min_units": 5},
    "sampling": {"num_continuations": 3, "temperature": 0.8, "top_p": 0.95, "max_new_units": 40},
}


@pytest.fixture
def root(tmp_path):
    copy_project(tmp_path / "project")
    return tmp_path / "project"


def reproduce(root, preset, *targets):
    """Run a preset at micro size without a network, and return its output."""
    apply_preset(preset, root)
    for choice, changes in SMALL.items():
        edit(root / "experiments" / f"{choice}.yaml", changes)
    edit(root / "params.yaml", PARAMS)
    start_history(root)
    record = root.parent / "tries"
    record.touch()
    variables = {"SPEECH_FOLDER": str(root / "speech"), **loopback_only(record)}
    output = run(root, *WARM, "dvc", "repro", *targets, variables=variables)
    assert [line for line in record.read_text().splitlines() if not line.startswith("started ")] == []
    return output


def test_real_small_runs_offline_from_a_voice_to_the_report(root):
    script = re.sub(r"STORIES = .*", f"STORIES = {STORIES}", (ROOT / "docs/speak.py").read_text(encoding="utf-8"))
    run(root, sys.executable, "-c", script)
    assert "report" in stages_of(reproduce(root, "real-small"))
    heard = tables.read(tables.TRANSCRIPTS, root / "artifacts/prompt_transcripts.parquet")
    assert heard.filter(pl.col("status") == "ok").height > 0.9 * heard.height  # a neural voice is understood
    scores = tables.read(tables.SCORES, root / "artifacts/scores/r1.parquet")
    assert scores.filter(pl.col("status") == "ok")["ppl"].is_finite().all()
    assert tables.read(tables.PAIRS, root / "artifacts/pairs/r1.parquet").height >= 2


WHO = ("der alte Mann", "die kleine Katze", "meine Schwester", "ein müder Bauer", "das junge Mädchen")
DOES = ("sucht", "findet", "trägt", "verkauft", "zeichnet")
WHAT = ("einen roten Apfel", "das blaue Boot", "den schweren Korb", "eine lange Leiter", "zwei weiße Gänse")
WHERE = ("am Hafen", "im dunklen Wald", "auf dem Markt", "hinter der Scheune", "neben der Brücke")


# A vocoder of two minutes is noise to Whisper: only without its limits are there texts, and pairs, to go on with.
ANYTHING_HEARD = {
    "no_speech_threshold": None,
    "logprob_threshold": None,
    "compression_ratio_threshold": None,
    "max_new_tokens": 40,
}


def speak_german(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["file_name,subset,speaker_id,text"]
    for part, number in [(part, number) for part, size in count.items() for number in range(size)]:
        clauses = [" ".join(rng.choice(words) for words in (WHO, DOES, WHAT, WHERE)) for _ in range(2)]
        text, name = " und ".join(clauses), f"{part}-{number:03}.wav"
        spoken = synthesize(text, voice="de", words_per_minute=170, sample_rate_hz=16000)
        soundfile.write(folder / name, spoken, 16000)
        rows.append(f"{name},{part},robot,{text}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_any_language_fits_units_and_a_unit_hifigan_on_german_and_reports(root):
    speak_german(root / "speech", {"train": 60, "valid": 10, "test": 10})
    edit(root / "experiments/asr/faster-whisper-base.yaml", {"language": "de", **ANYTHING_HEARD})
    edit(root / "experiments/vocoder/hifigan-scratch.yaml", TINY_HIFIGAN)
    output = reproduce(root, "any-language")
    assert "report" in stages_of(output)
    steady = {name: float(value) for name, value in re.findall(r"(abx_voice|unit_error_noise) ([\d.]+)", output)}
    assert steady["abx_voice"] > 0.9  # 1.00 was measured of layer 4, .72 of layer 6
    assert 0 < steady["unit_error_noise"] < 0.4  # .18 was measured
    losses = pl.read_csv(root / "artifacts/vocoder/training.csv")["mel_loss"]
    assert losses.tail(20).mean() < 0.8 * losses.head(20).mean()  # it learns; nobody understands it yet
    heard = tables.read(tables.TRANSCRIPTS, root / "artifacts/prompt_transcripts.parquet")
    spoken = {word.lower() for part in (WHO, DOES, WHAT, WHERE) for text in part for word in text.split()}
    of_it = [bool({word for word in text.split() if len(word) > 4} & spoken) for text in heard["text"].drop_nulls()]
    assert sum(of_it) > 0.5 * heard.height  # 16 of 22 were measured; no such word is in another language

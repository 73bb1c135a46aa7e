"""Objects of one's own code: what each kind is held to, and what reruns when their file changes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alignslm.asr import Transcript, load_asr, prepare_asr
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.own_code import (
    OwnCode,
    PythonASRConfig,
    PythonEncoderConfig,
    PythonJudgeConfig,
    PythonSelectorConfig,
    PythonVocoderConfig,
)
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.integrity import DamagedError
from alignslm.judge import JudgeInput, JudgeOutput, load_judge, prepare_judge
from alignslm.own_code import OwnCodeError
from alignslm.pairs.own import load_selector
from alignslm.provenance import UnitContract
from alignslm.vocoder import VocoderExample, load_vocoder, prepare_vocoder
from tests.messages import names

STORIES = [
    JudgeInput("tom walks", "he finds a shell"),
    JudgeInput("anna bakes bread", "she eats it"),
    JudgeInput("a dog", "barks"),
]
COUNTS_WORDS = """
from alignslm.judge import JudgeOutput

class CountsWords:
    def __init__(self, best):
        self.best = best

    def judge(self, stories):
        counts = [len(story.continuation.split()) for story in stories]
        return [JudgeOutput(1 + 4 * min(1, n / self.best), None, "ok", None) for n in counts]
"""
CONTRACT = UnitContract(
    encoder="x",
    revision="1",
    sample_rate_hz=1000,
    frame_rate_hz=10.0,
    layer=None,
    padding="none",
    codebook_sha256="0",
    num_units=4,
    deduplicated=True,
)


def config_of(kind: type[OwnCode], name: str, **values: object) -> OwnCode:
    return kind.model_validate({"kind": "python", "object": f"mine:{name}", "options": {}, **values})


def write(tmp_path: Path, source: str) -> Path:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code/mine.py").write_text(source)
    return tmp_path / "code"


def judge_problem(tmp_path, source, name="Mine", **options):
    config = config_of(PythonJudgeConfig, name, options=options)
    with pytest.raises(OwnCodeError) as raised:
        prepare_judge(config, STORIES, tmp_path / "judge", device="cpu", code=write(tmp_path, source))
    return str(raised.value)


def judging(body: str) -> str:
    return f"""
from alignslm.judge import JudgeOutput

class Mine:
    def judge(self, stories):
        {body}
"""


def test_a_judge_of_ones_own_is_prepared_and_loaded_without_its_first_file(tmp_path, capsys):
    config = config_of(PythonJudgeConfig, "CountsWords", options={"best": 8})
    code = write(tmp_path, COUNTS_WORDS)
    figures = prepare_judge(config, STORIES, tmp_path / "judge", device="cpu", code=code)
    # Scores 3, 2.5 and 1.5 of true texts and of each other's; of two in another order 3 and 2.5, one word has no other.
    expected = {"auc_true_vs_shuffled": 1 / 2, "auc_true_vs_shuffled_words": 2 / 6, "score_spread": (7 / 18) ** 0.5}
    assert figures == pytest.approx(expected)
    names(capsys.readouterr().out, "warning", "AUC 0.33 on 3 texts")  # it counts words, and is taken all the same
    (code / "mine.py").unlink()
    found = load_judge(config, tmp_path / "judge", device="cpu").judge(STORIES)
    assert [one.score for one in found] == [3.0, 2.5, 1.5]
    assert not list(tmp_path.rglob("__pycache__"))  # the folder is an artifact


def test_what_is_fitted_lies_in_the_artifact_and_is_loaded_from_it(tmp_path):
    code = write(
        tmp_path,
        COUNTS_WORDS
        + """
    def fit(self, examples, folder):
        self.best = max(len(story.continuation.split()) for story in examples)
        (folder / "best.txt").write_text(str(self.best))
        return {"best": self.best}

    def load(self, folder, device):
        self.best = int((folder / "best.txt").read_text())
""",
    )
    config = config_of(PythonJudgeConfig, "CountsWords", options={"best": 0}, auc_texts=0)
    assert prepare_judge(config, STORIES, tmp_path / "judge", device="cpu", code=code) == {"best": 4.0}
    found = load_judge(config, tmp_path / "judge", device="cpu").judge(STORIES[:1])
    assert found == [JudgeOutput(5.0, None, "ok", None)]


def test_a_missing_file_class_or_method_is_named(tmp_path):
    config = config_of(PythonJudgeConfig, "Mine")
    with pytest.raises(OwnCodeError) as raised:
        prepare_judge(config, STORIES, tmp_path / "judge", device="cpu", code=tmp_path)
    names(raised.value, "mine:Mine", "mine.py")
    names(judge_problem(tmp_path, "x = 1"), "mine.py", "Mine", "mine:Mine")
    names(judge_problem(tmp_path, "class Mine:\n    def score(self): ..."), "mine:Mine", "judge", "docs/extending.md")
    names(judge_problem(tmp_path, "class Mine: ...", best=2), "best", "options", "TypeError")
    names(judge_problem(tmp_path, "import no_such_package"), "mine.py", "ModuleNotFoundError", "no_such_package")
    with pytest.raises(DamagedError) as raised:
        load_judge(config, tmp_path / "nothing", device="cpu")
    names(raised.value, "nothing", "dvc repro")


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        ("return [JudgeOutput(3.0, None, 'ok', None)]", ("judge", "1", "3")),
        ("return [3.0 for _ in stories]", ("3.0", "JudgeOutput")),
        ("return [JudgeOutput(7.0, None, 'ok', None) for _ in stories]", ("7.0", "5")),
        ("return [JudgeOutput(None, None, 'ok', None) for _ in stories]", ("score", "perplexity")),
        ("return [JudgeOutput(1.0, None, 'fine', None) for _ in stories]", ("fine", "failed")),
        (
            "return [JudgeOutput(1.0 + len(stories), None, 'ok', None) for _ in stories]",
            ("row 0", "2.0", "4.0", "alone"),
        ),
        ("return [JudgeOutput(1.0 + n, None, 'ok', None) for n, _ in enumerate(stories)]", ("row 0", "reverse")),
        ("return 1 / 0", ("judge", "ZeroDivisionError")),
    ],
)
def test_a_judge_that_breaks_its_promise_is_refused(tmp_path, body, facts):
    names(judge_problem(tmp_path, judging(body)), "mine:Mine", *facts)


ENCODER = """
import numpy as np
from alignslm.encoder import Encoded
from alignslm.units import deduplicate

class Signs:
    def __init__(self, most=3):
        self.most = most

    def encode(self, waveforms):
        return [Encoded(*deduplicate((one[::100] > 0) * self.most)) for one in waveforms]
"""
WAVEFORMS = [np.sin(np.arange(n) / 50).astype(np.float32) for n in (900, 1200, 700)]
RATES = {"sample_rate_hz": 1000, "fit_utterances": 3}


def test_an_encoder_of_ones_own_has_a_contract_that_names_its_code(tmp_path):
    code = write(tmp_path, ENCODER)
    config = config_of(PythonEncoderConfig, "Signs", num_units=4, frame_rate_hz=10.0, **RATES)
    prepare_encoder(config, iter(WAVEFORMS), tmp_path / "encoder", code=code)
    encoder = load_encoder(config, tmp_path / "encoder", device="cpu")
    units, durations = encoder.encode(WAVEFORMS[:1])[0]
    assert units.dtype == np.uint16
    assert set(units.tolist()) == {0, 3}
    assert durations.sum() == 9
    write(tmp_path, ENCODER.replace("> 0", ">= 0"))
    prepare_encoder(config, iter(WAVEFORMS), tmp_path / "other" / "encoder", code=code)
    other = load_encoder(config, tmp_path / "other" / "encoder", device="cpu")
    assert other.contract != encoder.contract
    few = config.model_copy(update={"num_units": 3})
    with pytest.raises(OwnCodeError) as raised:
        prepare_encoder(few, iter(WAVEFORMS), tmp_path / "few", code=code)
    names(raised.value, "mine:Signs", "encode", "0..3", "0..2", "num_units")


VOCODER = """
import numpy as np

class Beeps:
    def synthesize(self, units):
        return [np.repeat(np.asarray(one, np.float32) / 4, 100) for one in units]
"""


def test_a_vocoder_of_ones_own(tmp_path):
    code = write(tmp_path, VOCODER)
    config = config_of(PythonVocoderConfig, "Beeps", **RATES)
    spoken = [VocoderExample(np.array([1, 2, n]), np.array([1, 1, 1]), WAVEFORMS[0]) for n in (0, 1, 3)]
    prepare_vocoder(config, spoken, CONTRACT, tmp_path / "vocoder", code=code)
    vocoder = load_vocoder(config, tmp_path / "vocoder", device="cpu")
    assert vocoder.contract == CONTRACT
    assert [len(one) for one in vocoder.synthesize([[1, 2], [], [3]])] == [200, 0, 100]
    write(tmp_path, VOCODER.replace("np.float32", "np.float64"))
    with pytest.raises(OwnCodeError) as raised:
        prepare_vocoder(config, spoken, CONTRACT, tmp_path / "other", code=code)
    names(raised.value, "synthesize", "float64", "float32")


ASR = """
from alignslm.asr import Transcript

class Loudness:
    def transcribe(self, waveforms):
        return [Transcript("loud", "ok", 1.0) if abs(one).max() > 0.5 else Transcript(None, "empty", None)
                for one in waveforms]
"""


def test_an_asr_model_of_ones_own(tmp_path):
    code = write(tmp_path, ASR)
    config = config_of(PythonASRConfig, "Loudness", resynthesized_fraction=0.0, **RATES)
    spoken = [(waveform, "text") for waveform in WAVEFORMS]
    prepare_asr(config, spoken, tmp_path / "asr", code=code)
    model = load_asr(config, tmp_path / "asr", device="cpu")
    assert model.transcribe([np.zeros(5, np.float32)]) == [Transcript(None, "empty", None)]
    write(tmp_path, ASR.replace('None, "empty"', '"", "ok"'))
    prepare_asr(config, spoken, tmp_path / "asr", code=code)
    with pytest.raises(OwnCodeError) as raised:
        load_asr(config, tmp_path / "asr", device="cpu").transcribe([np.zeros(5, np.float32)])
    names(raised.value, "transcribe", "ok", "empty")


SELECTOR = """
import polars as pl

class Longest:
    def select(self, pool, rules):
        ranked = pool.with_columns(utility=pl.col("num_words").cast(pl.Float64)).sort("prompt_id", "utility")
        ends = ranked.group_by("prompt_id", maintain_order=True)
        return ends.last().select("continuation_id", "utility"), ends.first().select("continuation_id", "utility")
"""
RULES = JudgedPreferences(
    sampled_from="base", min_chosen_score=3, max_rejected_score=2, min_margin=1, max_auto_bleu=0.5
)
POOL = pl.DataFrame(
    {
        "prompt_id": ["a", "a", "a", "b", "b"],
        "continuation_id": ["a-0", "a-1", "a-2", "b-0", "b-1"],
        "num_words": [3, 9, 5, 4, 7],
        "utility": [1.0, 1.0, 5.0, 2.0, 2.0],
    }
)


def test_a_selector_of_ones_own_picks_by_a_reward_of_its_own(tmp_path):
    config = config_of(PythonSelectorConfig, "Longest", min_words=0)
    chosen, rejected = load_selector(config, code=write(tmp_path, SELECTOR)).candidates(POOL, RULES)
    assert dict(chosen.select("continuation_id", "utility").iter_rows()) == {"a-1": 9.0, "b-1": 7.0}
    assert rejected["continuation_id"].to_list() == ["a-0", "b-0"]


@pytest.mark.parametrize(
    ("before", "after", "facts"),
    [
        ("ends.last()", "ends.last().head(1)", ("prompt", "b", "alone")),
        ('ends.last().select("continuation_id", "utility")', 'ends.last().select("utility")', ("continuation_id",)),
        ("ends.last()", "pl.concat([ends.last(), ends.last()])", ("continuation_id", "twice")),
        ("ends.last()", "ends.first()", ("a-0", "min_words")),
        ("return ends.last()", "return ends.last()#", ("DataFrames", "chosen")),
    ],
)
def test_a_selector_that_breaks_its_promise_is_refused(tmp_path, before, after, facts):
    config = config_of(PythonSelectorConfig, "Longest", min_words=5)
    selector = load_selector(config, code=write(tmp_path, SELECTOR.replace(before, after)))
    with pytest.raises(OwnCodeError) as raised:
        selector.candidates(POOL, RULES)
    names(raised.value, "mine:Longest", *facts)

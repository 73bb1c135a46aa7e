"""Row functions: as many rows out as in, in order, each with a status; nothing vanishes."""

import polars as pl
import pytest

from alignslm import tables
from alignslm.asr import Transcript
from alignslm.asr.rows import transcribe
from alignslm.audio import encode_flac
from alignslm.config.calibration import Calibration
from alignslm.config.feedback import NgramJudgeConfig, Sampling
from alignslm.judge import JudgeInput, load_judge, prepare_judge
from alignslm.judge.rows import UnreadablePromptError, join_judge_inputs, score
from alignslm.lm.rows import sample_continuations
from alignslm.prompts import ground_truth_continuations
from alignslm.storyworld.corpus import story_texts
from tests.messages import names
from tests.sample_experiment import CHOICES
from tests.tiny_lm import tiny_lm

LM = tiny_lm()
SAMPLING = Sampling(num_continuations=3, temperature=1.0, top_p=0.95, max_new_units=10)


def prompts(count=5):
    rows = [
        {
            "prompt_id": f"p{number}",
            "utterance_id": f"u{number}",
            "split": "train",
            "end_s": 1.0,
            "num_units": 3 + number % 2,
            "units": [number, number + 1, number + 2] + [0] * (number % 2),
            "continuation_units": [7, 8],
            "prompt_text": "kate finds a blue boat on the beach",
            "continuation_text": "she rinses the boat",
        }
        for number in range(count)
    ]
    return pl.DataFrame(rows, schema=dict(tables.PROMPTS.schema))


def drawn(frame, purpose="r1", batch_size=64):
    return sample_continuations(frame, LM, SAMPLING, seed=0, purpose=purpose, batch_size=batch_size)


def test_draws_close_their_keys_and_number_every_prompt():
    frame = tables.conform(drawn(prompts()), tables.CONTINUATIONS)
    tables.verify(frame, tables.CONTINUATIONS, where="drawn")
    tables.require_keys(frame, "prompt_id", prompts(), "prompt_id", names="continuations to prompts")
    assert frame.group_by("prompt_id").len()["len"].to_list() == [3] * 5


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_draws_depend_on_neither_batch_nor_order_nor_company(batch_size):
    whole = tables.conform(drawn(prompts()), tables.CONTINUATIONS).drop("logprob")
    shuffled = drawn(prompts().sample(fraction=1, shuffle=True, seed=2), batch_size=batch_size)
    assert tables.conform(shuffled, tables.CONTINUATIONS).drop("logprob").equals(whole)
    alone = drawn(prompts().filter(pl.col("prompt_id") == "p3"), batch_size=batch_size).drop("logprob")
    assert alone.sort("continuation_id").equals(whole.filter(pl.col("prompt_id") == "p3"))


def test_rounds_draw_independently():
    assert drawn(prompts(), "r1")["seed"].to_list() != drawn(prompts(), "r2")["seed"].to_list()
    assert not set(drawn(prompts(), "r1")["continuation_id"]) & set(drawn(prompts(), "r2")["continuation_id"])


def test_the_ceiling_is_the_corpus_itself():
    frame = tables.conform(ground_truth_continuations(prompts()), tables.CONTINUATIONS)
    tables.verify(frame, tables.CONTINUATIONS, where="true")
    assert frame["units"].to_list() == [[7, 8]] * 5


class Echo:
    """A recogniser that says how many samples it was given: shows what reaches a recogniser, and in which order."""

    sample_rate_hz = 8000

    def transcribe(self, waveforms):
        return [Transcript(str(len(w)), "ok", 1.0) if len(w) else Transcript(None, "empty", None) for w in waveforms]


def test_transcripts_keep_every_row_resampled_and_in_order():
    lengths = [1600, 0, 3200]
    speech = pl.DataFrame(
        [
            {
                "continuation_id": f"c{number}",
                "audio": {"bytes": encode_flac(pl.zeros(length, eager=True).to_numpy(), 16000), "path": ""},
                "num_samples": length,
                "sample_rate_hz": 16000,
                "status": "ok",
            }
            for number, length in enumerate(lengths)
        ],
        schema=dict(tables.SPEECH.schema),
    )
    heard = transcribe(speech, Echo())
    said = heard.select("source_id", "text", "status", "confidence").rows()
    assert said == [("c0", "800", "ok", 1.0), ("c1", None, "empty", None), ("c2", "1600", "ok", 1.0)]
    tables.verify(heard, tables.TRANSCRIPTS, where="heard")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    from ruamel.yaml import YAML

    from alignslm.config.speech import StoryWorldConfig

    corpus = StoryWorldConfig(**YAML(typ="safe").load(CHOICES["corpus/world"])).model_copy(update={"num_texts": 600})
    texts = [JudgeInput(*row) for row in story_texts(corpus).select("prompt_text", "continuation_text").iter_rows()]
    config = NgramJudgeConfig(
        kind="ngram",
        order=3,
        discount=0.75,
        calibration=Calibration(min_word_logprob=-6, ground_truth_score=4, shuffled_score=2),
    )
    folder = tmp_path_factory.mktemp("judge")
    prepare_judge(config, texts, folder, device="cpu")
    return load_judge(config, folder, device="cpu")


def stories():
    continuations = drawn(prompts(1))
    heard = pl.DataFrame(
        {
            "source_id": continuations["continuation_id"],
            "text": ["she rinses the boat the boat", None, None],
            "status": ["ok", "empty", "failed"],
            "confidence": [0.9, None, None],
        }
    )
    return join_judge_inputs(continuations, heard, prompts(1))


def test_what_was_not_heard_is_never_scored_and_never_dropped(judge):
    scored = score(stories(), judge, auto_bleu="gslm")
    assert scored["status"].to_list() == ["ok", "empty", "failed"]
    assert scored["judge_score"].is_null().to_list() == [False, True, True]
    assert scored["num_words"].to_list() == [6, 0, 0]
    assert scored["auto_bleu"].to_list() == [pytest.approx(0.4), None, None]
    tables.verify(tables.conform(scored, tables.SCORES), tables.SCORES, where="scores")


def test_scores_do_not_depend_on_the_shard(judge):
    whole = score(stories(), judge, auto_bleu="gslm")
    assert pl.concat(score(part, judge, auto_bleu="gslm") for part in stories().iter_slices(1)).equals(whole)


def test_a_prompt_without_text_is_one_clear_error():
    continuations = drawn(prompts(1))
    heard = pl.DataFrame(
        {
            "source_id": continuations["continuation_id"],
            "text": ["a"] * 3,
            "status": ["ok"] * 3,
            "confidence": [1.0] * 3,
        }
    )
    with pytest.raises(UnreadablePromptError) as raised:
        join_judge_inputs(continuations, heard, prompts(1).with_columns(prompt_text=pl.lit(None, pl.String)))
    names(raised.value, "'p0'", "1")


def test_what_follows_a_prompt_in_which_nothing_was_heard_is_failed_and_kept():
    continuations = drawn(prompts(2))
    heard = pl.DataFrame(
        {
            "source_id": continuations["continuation_id"],
            "text": ["a"] * 6,
            "status": ["ok"] * 6,
            "confidence": [1.0] * 6,
        }
    )
    text = pl.when(pl.col("prompt_id") == "p0").then(pl.lit(None, pl.String)).otherwise("prompt_text")
    stories = join_judge_inputs(continuations, heard, prompts(2).with_columns(prompt_text=text))
    assert len(stories) == 6
    assert stories.filter(prompt_id="p0")["status"].to_list() == ["failed"] * 3
    assert stories.filter(prompt_id="p1")["status"].to_list() == ["ok"] * 3

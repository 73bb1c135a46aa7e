"""The guard's choice against brute force and by hand, what it measures, and what its parameters must not say."""

import math
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import audio, tables
from alignslm.config.guard import MEASURES, Guard, Limit
from alignslm.config.loading import load_config, load_experiment
from alignslm.config.mos import MosConfig
from alignslm.config.problems import ConfigError
from alignslm.encoder import Encoded
from alignslm.engine.work import LazyModel
from alignslm.guard import choose, measures_of, outcome, unit_measures
from alignslm.mos import load_mos, prepare_mos
from stages.guard import _Ears
from tests import online_world
from tests.listening_world import frame
from tests.messages import names
from tests.sample_experiment import REPOSITORY, write_experiment

SCHEMA = {"step": pl.Int64, **dict.fromkeys(MEASURES, pl.Float64)}


def guard_of(best: str = "judge_score", **limits: dict) -> Guard:
    return Guard.model_validate(
        {"init_from": "base", "steps_of": "online", "best": best, "num_continuations": 1, "limits": limits}
    )


def steps(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


COLLAPSE = steps(
    {"step": 0, "judge_score": 2.0, "heldout_judge_score": 2.2, "unique_ratio": 1.0, "kl": 0.0},
    {"step": 10, "judge_score": 2.6, "heldout_judge_score": 2.7, "unique_ratio": 0.95, "kl": 4.0},
    {"step": 20, "judge_score": 3.1, "heldout_judge_score": 2.9, "unique_ratio": 0.9, "kl": 9.0},
    {"step": 30, "judge_score": 4.2, "heldout_judge_score": 1.9, "unique_ratio": 0.4, "kl": 30.0},
    {"step": 40, "judge_score": 5.0, "heldout_judge_score": 1.0, "unique_ratio": 0.1, "kl": 80.0},
)


def kept(measured: pl.DataFrame, guard: Guard) -> int:
    chosen = choose(measured, guard)
    tables.verify(chosen, tables.GUARD, where="here")
    (step,) = chosen.filter("kept")["step"]
    return step


@pytest.mark.parametrize(
    ("best", "limits", "step", "first"),
    [
        ("judge_score", {"unique_ratio": {"at_least": 0.8}}, 20, ("step 30", "unique_ratio 0.4 < 0.8")),
        ("judge_score", {"kl": {"at_most": 4.0}}, 10, ("step 20", "kl 9 > 4")),
        ("judge_score", {"unique_ratio": {"at_least": 0.0}}, 40, ("every step is inside",)),
        ("heldout_judge_score", {"unique_ratio": {"at_least": 0.0}}, 20, ("every step is inside",)),
        ("heldout_judge_score", {"kl": {"at_least": 0, "at_most": 0}}, 0, ("base", "step 10", "kl 4 > 0")),
        ("judge_score", {"kl": {"at_least": 5, "at_most": 29}}, 20, ("step 10", "kl 4 < 5")),
        ("judge_score", {"kl": {"at_most": 1.0}}, 0, ("base", "step 10", "kl 4 > 1")),
        ("judge_score", {"distinct_2": {"at_least": 0.1}}, 0, ("base", "step 10", "distinct_2 was not measured")),
    ],
)
def test_the_kept_step_by_hand(best, limits, step, first):
    guard = guard_of(best, **limits)
    assert kept(COLLAPSE, guard) == step
    names(outcome(choose(COLLAPSE, guard), guard), "online", *first)


def test_every_limit_of_a_step_is_named():
    limits = {"unique_ratio": {"at_least": 0.5}, "kl": {"at_most": 20}}
    found = choose(COLLAPSE, guard_of(**limits))["exceeded"].to_list()
    assert found == [[], [], [], ["unique_ratio 0.4 < 0.5", "kl 30 > 20"], ["unique_ratio 0.1 < 0.5", "kl 80 > 20"]]


def test_a_step_inside_is_kept_also_where_the_start_has_the_higher_score():
    fallen = COLLAPSE.with_columns(judge_score=5 - pl.col("step") / 10)
    assert kept(fallen, guard_of(kl={"at_most": 100})) == 10


def test_a_step_without_a_score_is_never_kept():
    measured = COLLAPSE.with_columns(judge_score=pl.when(pl.col("step") == 20).then(None).otherwise("judge_score"))
    guard = guard_of(unique_ratio={"at_least": 0.8})
    assert kept(measured, guard) == 10
    names(outcome(choose(measured, guard), guard), "step 20", "judge_score was not measured")


VALUES = st.one_of(st.none(), st.integers(-3, 3).map(float))
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=7)
ENDS = st.tuples(st.integers(-3, 1), st.integers(0, 4)).map(lambda ends: {"at_least": ends[0], "at_most": sum(ends)})


@settings(deadline=None)
@given(ROWS, ENDS, ENDS, st.randoms())
def test_the_choice_is_that_of_brute_force(rows, kl, units, chance):
    made = [{"step": 5 * n, "judge_score": score, "kl": a, "num_units": b} for n, (score, a, b) in enumerate(rows)]
    guard = guard_of(kl=kl, num_units=units)
    chance.shuffle(made)
    found = kept(steps(*made), guard)
    inside = [
        (row["judge_score"], row["step"])
        for row in made
        if row["step"] > 0
        and row["judge_score"] is not None
        and all(
            row[name] is not None and limit["at_least"] <= row[name] <= limit["at_most"]
            for name, limit in (("kl", kl), ("num_units", units))
        )
    ]
    if not inside:
        assert found == 0
    else:
        highest = max(score for score, _ in inside)
        assert found == min(step for score, step in inside if score == highest)


@settings(deadline=None)
@given(ROWS, ENDS, ENDS)
def test_a_further_limit_never_raises_the_kept_score(rows, kl, units):
    measured = steps(*({"step": n, "judge_score": s, "kl": a, "num_units": b} for n, (s, a, b) in enumerate(rows)))
    loose, tight = (kept(measured, guard_of(**limits)) for limits in ({"kl": kl}, {"kl": kl, "num_units": units}))
    scores = dict(measured.select("step", "judge_score").iter_rows())
    assert tight == 0 or (loose > 0 and scores[tight] <= scores[loose])


def test_units_by_hand():
    found = unit_measures([[1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4], [7]])
    assert found["unit_repetition"] == pytest.approx((2 / 5 + 0) / 2)  # of 5 runs and of 1; [7] has none
    shares = [3 / 13, 3 / 13, 3 / 13, 3 / 13, 1 / 13]
    assert found["unit_entropy"] == pytest.approx(-sum(share * math.log2(share) for share in shares))
    assert unit_measures([[5, 5], [6, 6]]) == {"unit_entropy": 1.0, "unit_repetition": None}
    assert unit_measures([[], []]) == {"unit_entropy": None, "unit_repetition": None}


def test_measures_are_those_of_evaluation():
    texts = {"a": ["the boat", "ok"], "b": ["the boat", "ok"], "c": ["a red boat", "ok"], "d": [None, "empty"]}
    scores = {"judge_score": [2.0, 3.0, 4.0, None], "heldout_judge_score": [1.0, 2.0, None, None]}
    scores |= {"silence_ratio": [0.1, 0.2, 0.3, 1.0], "ppl": [1.0, 1.0, 1.0, 1.0]}
    judged = pl.DataFrame(
        [
            {
                "model": "safe",
                "continuation_id": name,
                "prompt_id": name,
                "sample_index": 0,
                "metric": metric,
                "value": v,
            }
            for metric, values in scores.items()
            for name, v in zip(texts, values, strict=True)
        ],
        schema=dict(tables.CONTINUATION_METRICS.schema),
    )
    transcripts = pl.DataFrame(
        [{"source_id": name, "text": text, "status": status} for name, (text, status) in texts.items()],
        schema=dict(tables.TRANSCRIPTS.schema),
    )
    found = measures_of(judged, transcripts, [[1, 2], [1, 2]])
    assert found == pytest.approx({
        "judge_score": 3.0,
        "heldout_judge_score": 1.5,
        "heldout_less_judge": -1.5,
        "silence_ratio": 0.4,
        "unique_ratio": 3 / 4,  # the boat, a red boat, and nothing
        "distinct_1": 4 / 7,  # the, boat, a, red of seven words
        "distinct_2": 3 / 4,
        "unit_entropy": 1.0,
    })  # fmt: skip


GUARD = "{init_from: base, steps_of: r1, best: judge_score, num_continuations: 1, limits: {kl: {at_most: 9}}}"
KEEP = ("{init_from: base, train_on: pairs/r1, trainer: dpo, warmup_steps: 10}", "keep_steps: true, ")


def experiment_with(root, guards: str, *, keep: bool = True):
    path = write_experiment(root) / "params.yaml"
    text = path.read_text().replace("guards: {}", f"guards: {guards}")
    if keep:
        text = text.replace(KEEP[0], KEEP[0].replace("{", "{" + KEEP[1]))
    path.write_text(text)
    return load_experiment(root)


def test_a_guard_is_a_checkpoint(tmp_path):
    guards = experiment_with(tmp_path, f"{{safe: {GUARD}}}").params.guards
    assert guards["safe"].limits == {"kl": Limit(at_most=9)}


@pytest.mark.parametrize(
    ("guards", "keep", "said"),
    [
        (f"{{safe: {GUARD}}}", False, ("guards.safe", "checkpoints.r1.keep_steps")),
        (f"{{sft: {GUARD}}}", True, ("guards.sft", "checkpoint")),
        (f"{{base: {GUARD}}}", True, ("guards.base", "checkpoint")),
        (f"{{safe: {GUARD.replace('steps_of: r1', 'steps_of: r9')}}}", True, ("guards.safe.steps_of", "r9", "r1")),
        (f"{{safe: {GUARD.replace('steps_of: r1', 'steps_of: safe')}}}", True, ("guards.safe.steps_of", "safe")),
        (f"{{safe: {GUARD.replace('init_from: base', 'init_from: sft')}}}", True, ("guards.safe.init_from", "base")),
        (f"{{safe: {GUARD.replace('at_most: 9', '')}}}", True, ("guards.safe.limits.kl", "at_least")),
        (f"{{safe: {GUARD.replace('at_most: 9', 'at_least: 3, at_most: 2')}}}", True, ("limits.kl", "at least 3")),
        (f"{{safe: {GUARD.replace('kl', 'mos')}}}", True, ("guards.safe.limits.mos", "kl")),
        (f"{{safe: {GUARD.replace('{kl: {at_most: 9}}', '{}')}}}", True, ("guards.safe.limits",)),
    ],
)  # fmt: skip
def test_what_a_guard_must_not_say(tmp_path, guards, keep, said):
    with pytest.raises(ConfigError) as raised:
        experiment_with(tmp_path, guards, keep=keep)
    names(str(raised.value), "params.yaml", *said)


def test_the_sound_of_the_clips_that_were_chosen_is_rated_by_the_headline_metric(tmp_path):
    config = load_config("mos", "dnsmos-quick", MosConfig, REPOSITORY)
    prepare_mos(config, tmp_path)
    predictor = load_mos(config, tmp_path, workers=1, device="cpu")
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 24_000)).astype(np.float32)
    cells = [audio.encode_flac(wave, 16_000) for wave in (noise[0], noise[1], noise[1][:0])]
    speech = frame(
        [
            {"continuation_id": name, "audio": {"bytes": cell, "path": None}}
            for name, cell in zip("abc", cells, strict=True)
        ],
        tables.SPEECH,
    )
    ears = _Ears(*[LazyModel(unused)] * 3, LazyModel(lambda: predictor))
    found = ears.opinions(speech)
    first = predictor.predict([audio.decode(cells[0])[0]])[0].values
    assert found["a"] == first[predictor.metrics.index("dnsmos_ovrl")]
    assert (sorted(found), found["c"]) == (["a", "b", "c"], None)
    assert ears.opinions(speech.clear()) == {}

    several = pl.concat(replace(spoken_by(predictor), rated=frozenset("b"))(drawn) for drawn in (DRAWN[:1], DRAWN[1:]))
    rated = several.select("source_id", pl.col("predicted_mos").is_not_null()).rows()
    assert rated == [("a", False), ("b", True), ("c", False)]  # a shard without any is as the others


def unused():
    raise AssertionError


class Hum(online_world.Spelling):
    """Forty milliseconds a unit; its encoder hears one unit in anything."""

    def synthesize(self, units):
        return [np.repeat(waveform, 640) for waveform in super().synthesize(units)]

    def encode(self, waveforms):
        return [Encoded(np.array([1]), np.array([1])) for _ in waveforms]


DRAWN = frame(
    [{"continuation_id": name, "prompt_id": name, "sample_index": 0, "units": [5, 9, 2, 7]} for name in "abc"],
    tables.CONTINUATIONS,
)


def spoken_by(predictor):
    return _Ears(*[LazyModel(Hum)] * 3, LazyModel(lambda: predictor))


def test_the_adapter_of_a_checkpoint_is_kept_also_after_a_kill_between_the_two(tmp_path):
    (tmp_path / "steps").mkdir()
    online_world.train(tmp_path)
    found = {path.parent.name: path.read_bytes() for path in (tmp_path / "steps").glob("*/adapter_model.safetensors")}
    assert sorted(found) == [f"{step:06d}" for step in range(1, online_world.CONFIG.max_steps + 1)]
    shutil.rmtree(tmp_path / "steps/000005")
    online_world.train(tmp_path)
    assert (tmp_path / "steps/000005/adapter_model.safetensors").read_bytes() == found["000005"]

"""The corpus's own endings, true and foreign: who is paired with whom, and what is heard."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.corpus_cloze import corpus_cloze_items, join, plan_endings
from alignslm.benchmarks.items import paired
from alignslm.config.evaluation import CorpusClozeConfig
from alignslm.provenance import row_seed
from tests.level_encoder import LevelEncoder
from tests.messages import names
from tests.tiny_lm import CONTRACT

RATE_HZ = CONTRACT.sample_rate_hz


def config(**changes):
    given_values = {"seed": 0, "split": "test", "pairs": 100, "context_s": 1.0, "ending_s": 0.6, "same_speaker": True}
    return CorpusClozeConfig(kind="corpus-cloze", **{**given_values, **changes})


def utterances(*rows):
    return pl.DataFrame(rows, schema=["utterance_id", "split", "speaker_id", "duration_s"], orient="row")


MANY = utterances(
    *((f"a{i}", "test", "anna", 2.0) for i in range(9)),
    *((f"b{i}", "test", "ben", 1.6) for i in range(2)),
    ("c", "test", "carl", 9.0),
    ("short", "test", "anna", 1.5),
    ("seen", "train", "anna", 9.0),
)


def test_foreign_endings_are_of_the_same_speaker_and_split_and_long_enough():
    plan = plan_endings(config(), MANY)
    assert set(plan["utterance_id"]) == {*(f"a{i}" for i in range(9)), "b0", "b1"}  # carl has nobody to borrow from
    for own, foreign, speaker in plan.iter_rows():
        assert own != foreign
        assert own[0] == foreign[0] == speaker[0]
    assert {"short", "seen"}.isdisjoint(plan["foreign"])


def test_any_speaker_will_do_where_that_is_asked_for():
    plan = plan_endings(config(same_speaker=False), MANY)
    assert "c" in set(plan["utterance_id"])
    assert len(plan) == 12


@given(pairs=st.integers(1, 14), order=st.permutations(range(len(MANY))))
def test_more_pairs_keep_the_fewer_ones_and_the_order_of_rows_changes_nothing(pairs, order):
    few, all_of_them = (plan_endings(config(pairs=n), MANY) for n in (pairs, 100))
    assert set(few.rows()) <= set(all_of_them.rows())
    assert len(few) == min(pairs, len(all_of_them))
    assert plan_endings(config(pairs=pairs), MANY[list(order)]).equals(few)


def test_no_partner_is_told_with_its_cure():
    with pytest.raises(BenchmarkError) as error:
        plan_endings(config(), MANY.filter(speaker_id="carl"))
    names(error.value, "1 utterances", "test split", "1.6 s", "same_speaker: false", "context_s", "ending_s")


def test_true_and_foreign_endings_are_cut_alike():
    tone = np.ones(RATE_HZ, np.float32)
    joined = join(tone, tone, sample_rate_hz=RATE_HZ)
    assert joined.size == 2 * RATE_HZ
    assert joined[RATE_HZ - 1] == joined[RATE_HZ] == 0
    assert (joined[: RATE_HZ - 80] == 1).all()
    assert (joined[RATE_HZ + 80 :] == 1).all()
    assert (tone == 1).all()


def write_corpus(path, spoken):
    """One second of the first level, one second of the second."""
    rows = [
        {
            "utterance_id": name,
            "split": "test",
            "speaker_id": "anna",
            "num_samples": 2 * RATE_HZ,
            "sample_rate_hz": RATE_HZ,
            "audio": {
                "bytes": encode_flac(np.repeat(np.float32(levels) / 20, RATE_HZ), RATE_HZ),
                "path": f"{name}.flac",
            },
        }
        for name, levels in spoken.items()
    ]
    tables.write_shards([pl.DataFrame(rows, schema=dict(tables.UTTERANCES.schema))], tables.UTTERANCES, path)


def test_items_hold_a_context_and_two_endings(tmp_path):
    """Levels of sound become units: the context's own, then its own or the other one's ending."""
    write_corpus(tmp_path / "utterances", {"x": (1, 2), "y": (3, 4)})
    items = pl.concat(corpus_cloze_items(config(), tmp_path / "utterances", LevelEncoder()))
    joined = paired(items)
    assert len(joined) == 2
    for row in joined.iter_rows(named=True):
        first = row["context_units"][0]
        own, foreign = (2, 4) if first == 1 else (4, 2)
        assert set(row["context_units"]) == set(row["context_units_negative"]) == {first}
        assert own in row["units"]
        assert foreign in row["units_negative"]
        assert row["num_samples"] == row["num_samples_negative"] == 1.6 * RATE_HZ


def test_items_come_in_the_order_of_their_table_whatever_is_in_memory(tmp_path, monkeypatch):
    """More items than one file of the table holds; of each, what a single step gives."""
    chance = np.random.default_rng(0)
    write_corpus(tmp_path / "utterances", {f"x{i}": tuple(chance.integers(1, 9, 2)) for i in range(9)})
    whole = pl.concat(corpus_cloze_items(config(), tmp_path / "utterances", LevelEncoder()))
    monkeypatch.setattr("alignslm.benchmarks.corpus_cloze._ITEMS_AT_ONCE", 5)
    steps = corpus_cloze_items(config(), tmp_path / "utterances", LevelEncoder())
    assert tables.write_shards(steps, tables.ITEMS, tmp_path / "items", part_rows=4) == 18
    assert tables.read(tables.ITEMS, tmp_path / "items").equals(whole)


@given(st.lists(st.sampled_from(["anna", "ben"]), min_size=3, max_size=12), st.integers(0, 99), st.booleans())
def test_a_foreign_ending_is_drawn_from_all_others(speakers, seed, same_speaker):
    """Against the definition: a list of all that may lend an ending, and one draw from it."""
    rows = utterances(*((f"u{i:02d}", "test", speaker, 2.0) for i, speaker in enumerate(speakers)))
    plan = plan_endings(config(seed=seed, same_speaker=same_speaker), rows)
    for own, foreign, speaker in plan.iter_rows():
        others = [f"u{i:02d}" for i, who in enumerate(speakers) if who == speaker or not same_speaker]
        others.remove(own)
        drawn = np.random.default_rng(row_seed(seed, "own-endings", own)).integers(len(others))
        assert foreign == others[drawn]

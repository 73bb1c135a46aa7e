"""sWUGGY and sBLIMP from files to figures, against the scoring rules written out slowly."""

import math
import shutil
import statistics
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from alignslm import audio, tables
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.conventions import frequency_band, preferred
from alignslm.benchmarks.official import encode_found, find_items
from alignslm.benchmarks.scoring import COLUMNS, score_items
from alignslm.config.benchmarks import Sblimp, Swuggy
from alignslm.config.sources import FolderSource
from alignslm.config.speech import MFCCKMeansConfig
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.figures.columns import EvalTables, columns_of
from tests.messages import names
from tests.test_benchmarks import CONFIG
from tests.tiny_lm import NUM_UNITS, tiny_lm
from tests.tiny_slm21 import LEXICAL, SYNTACTIC, VOICES, name_of, read_gold, tiny_slm21, write_gold

NO_JUDGED = pl.DataFrame(schema=dict(tables.CONTINUATION_METRICS.schema))


def choice(root, kind="swuggy", split="dev"):
    data = FolderSource(kind="folder", path=str(root))
    return Swuggy(kind=kind, data=data, split=split) if kind == "swuggy" else Sblimp(kind=kind, data=data, split=split)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tiny_slm21(tmp_path_factory.mktemp("slm21"))
    word, nonword = (root / "lexical/dev" / f"{name_of('dev', 4, 'de', c)}.wav" for c in (1, 0))
    shutil.copy(word, nonword)  # equal audio, equal units, equal scores: a tie
    return root


@pytest.fixture(scope="module")
def encoder(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    config = MFCCKMeansConfig(
        kind="mfcc-kmeans", seed=0, sample_rate_hz=16000, frame_rate_hz=25.0, num_coefficients=13, stacked_frames=3,
        num_units=NUM_UNITS, fit_utterances=30,
    )  # fmt: skip
    files = sorted((release / "syntactic/dev").glob("*.wav"))
    prepare_encoder(config, [audio.decode(file.read_bytes())[0] for file in files], folder)
    return load_encoder(config, folder, device="cpu")


def encoded(root, encoder, kind, folder, shard_size=500):
    return pl.concat(encode_found(find_items(choice(root, kind)), encoder, shard_size=shard_size, work=folder))


@pytest.fixture(scope="module")
def scored(release, encoder, tmp_path_factory):
    """Item scores of both benchmarks, one word unmeasured in one voice, one in all."""
    frames = []
    for kind in ("swuggy", "sblimp"):
        items = encoded(release, encoder, kind, tmp_path_factory.mktemp("work"))
        tables.verify(items, tables.ITEMS, where=kind)
        frames.append(score_items(items, tiny_lm(), CONFIG, benchmark=kind, model="m", batch_size=8))
    lost = ((pl.col("pair_id") == "2") & (pl.col("voice") == "de")) | (pl.col("pair_id") == "3")
    return [frames[0].with_columns(unmeasured(name, lost) for name in ("positive_logprob", "correct")), frames[1]]


def unmeasured(name, lost):
    return pl.when(lost & (pl.col("benchmark") == "swuggy")).then(None).otherwise(name).alias(name)


def scores_by_file(gold, scores):
    """Return the score of every file name, None where it was not measured."""
    found = {(row["pair_id"], row["voice"]): row for row in scores.iter_rows(named=True)}
    key = (lambda g: "/".join((g["type"], g["subtype"], g["id"]))) if "type" in gold[0] else (lambda g: g["id"])
    sides = {"1": "positive_logprob", "0": "negative_logprob"}
    return {g["filename"]: found[key(g), g["voice"]][sides[g["correct"]]] for g in gold}


BANDS = [("oov", 0, 1), ("1-5", 1, 5), ("6-20", 5, 20), ("21-100", 20, 100), (">100", 100, math.inf)]


def oracle(gold, score):
    """Figures of the scoring rules: per id the mean over its measured voices, then the mean over ids."""
    points, facts = defaultdict(list), {}
    for word in (g for g in gold if g["correct"] == "1"):
        key = (word.get("type"), word.get("subtype"), word["id"])
        [other] = [
            g for g in gold
            if g["correct"] == "0" and g["voice"] == word["voice"] and (g.get("type"), g.get("subtype"), g["id"]) == key
        ]  # fmt: skip
        facts[key] = word
        a, b = score[word["filename"]], score[other["filename"]]
        points[key] += [] if a is None or b is None else [1.0 if a > b else 0.5 if a == b else 0.0]
    by_id = {key: statistics.fmean(values) for key, values in points.items() if values}
    groups = defaultdict(list)
    for key, value in by_id.items():
        fact = facts[key]
        names = ["accuracy"]
        if "type" in fact:
            names += [f"accuracy/{fact['type']}", f"accuracy/{fact['type']}/{fact['subtype']}"]
        else:
            [band] = [name for name, low, high in BANDS if low <= int(fact["frequency"]) < high]
            names += [f"accuracy/length {fact['length']}", "accuracy/oov" if band == "oov" else "accuracy/in-vocab"]
            names += [] if band == "oov" else [f"accuracy/frequency {band}"]
        for name in names:
            groups[name].append(value)
    return by_id, {name: (statistics.fmean(values), len(values)) for name, values in groups.items()}


def figures(scores):
    """Return mean and number of measured ids of every metric of one benchmark, conventions left out."""
    columns = columns_of(EvalTables(NO_JUDGED, scores, {}), "m")
    measured = {metric: column.values[~np.isnan(column.values)] for (_, metric), column in columns.items()}
    return {
        metric: (float(values.mean()), len(values))
        for metric, values in measured.items()
        if "@" not in metric and metric != "missing_ratio" and len(values)
    }


@pytest.mark.parametrize(("place", "task"), [(0, "lexical"), (1, "syntactic")])
def test_figures_equal_the_scoring_rules(release, scored, place, task):
    gold, scores = read_gold(release / task / "dev"), scored[place]
    by_id, groups = oracle(gold, scores_by_file(gold, scores))
    assert figures(scores) == {name: (pytest.approx(value), n) for name, (value, n) in groups.items()}
    overall = columns_of(EvalTables(NO_JUDGED, scores, {}), "m")[scores["benchmark"][0], "accuracy"]
    found = {key: value for key, value in zip(overall.clusters, overall.values, strict=True) if not math.isnan(value)}
    assert found == {"/".join(filter(None, key)): pytest.approx(value) for key, value in by_id.items()}


def test_the_tiny_release_holds_what_the_rules_are_about(scored):
    words = scored[0]
    assert set(words["band"]) == {name for name, _, _ in BANDS}
    assert words.filter(pair_id="4", voice="de")["correct"].item() == 0.5
    overall = columns_of(EvalTables(NO_JUDGED, words, {}), "m")["swuggy", "accuracy"]
    assert int(np.isnan(overall.values).sum()) == 1  # id 3, lost in every voice; id 2 has its other voices
    share = columns_of(EvalTables(NO_JUDGED, words, {}), "m")["swuggy", "missing_ratio"]
    assert share.values.sum() == 1 + len(VOICES)
    assert share.values.size == len(words)


LIKELIHOODS = st.lists(st.one_of(st.none(), st.integers(-3, 0)), min_size=60, max_size=60)


@settings(max_examples=40, deadline=None)
@given(LIKELIHOODS, st.sampled_from(["lexical", "syntactic"]), st.randoms())
def test_any_scores_in_any_order_give_the_oracles_figures(release, scored, values, task, random):
    gold = read_gold(release / task / "dev")
    frame = scored[0 if task == "lexical" else 1]
    sides = {name: values[i::2][: len(frame)] for i, name in enumerate(("positive_logprob", "negative_logprob"))}
    made = frame.with_columns(*(pl.Series(name, side, pl.Float64) for name, side in sides.items())).with_columns(
        preferred(pl.col("positive_logprob"), pl.col("negative_logprob")).alias("correct")
    )
    _, groups = oracle(gold, scores_by_file(gold, made))
    shuffled = made[random.sample(range(len(made)), len(made))]
    assert figures(shuffled) == {name: (pytest.approx(value), n) for name, (value, n) in groups.items()}


@pytest.mark.parametrize(
    ("count", "band"),
    [(0, "oov"), (1, "1-5"), (4, "1-5"), (5, "6-20"), (19, "6-20"), (20, "21-100"), (99, "21-100"), (100, ">100")],
)
def test_bands_are_half_open(count, band):
    assert pl.select(frequency_band(pl.lit(count))).item() == band
    assert pl.select(frequency_band(pl.lit(None, pl.Int32))).item() is None


@pytest.mark.parametrize(
    ("kind", "task", "columns"), [("swuggy", "lexical", LEXICAL), ("sblimp", "syntactic", SYNTACTIC)]
)
def test_order_of_rows_files_shards_and_batches_changes_nothing(release, encoder, tmp_path, kind, task, columns):
    copy = tmp_path / "copy" / "sLM21-dataset"  # one folder down, as an archive holds it
    (copy / task).mkdir(parents=True)
    for file in sorted((release / task / "dev").glob("*.wav"), reverse=True):
        (copy / task / "dev").mkdir(exist_ok=True)
        shutil.copy(file, copy / task / "dev")
    rows = read_gold(release / task / "dev")
    write_gold(copy / task / "dev", columns, rows[::-1])
    one = encoded(release, encoder, kind, tmp_path / "one", shard_size=500)
    two = encoded(copy.parent, encoder, kind, tmp_path / "two", shard_size=7)
    assert one.equals(two)
    assert one.select("audio").unnest("audio")["bytes"].null_count() == len(one)  # hash and units, no audio
    lm = tiny_lm()
    mixed = two.sample(fraction=1, shuffle=True, seed=1)
    alone, together = (
        score_items(items.select(COLUMNS), lm, CONFIG, benchmark=kind, model="m", batch_size=rows)
        for items, rows in ((one, 1), (mixed, 32))
    )
    assert alone.equals(together)


def test_null_and_nan_are_words(release):
    texts = set(find_items(choice(release)).rows["text"])
    assert {"null", "nan", "n a l l"} <= texts  # a non-word without a spelling is told by its phones


def test_an_interrupted_import_is_taken_up(release, encoder, tmp_path, capsys):
    found = find_items(choice(release))
    shards = encode_found(found, encoder, shard_size=25, work=tmp_path)
    next(shards)
    shards.close()
    whole = pl.concat(encode_found(found, encoder, shard_size=25, work=tmp_path))
    names(capsys.readouterr().out, "benchmark: 1 of 3 shards")
    assert len(whole) == 60


# --- refusals


def lexical_copy(release, tmp_path):
    shutil.copytree(release / "lexical", tmp_path / "lexical")
    return tmp_path / "lexical" / "dev"


def test_the_challenge_zip_without_labels_is_recognised(release, tmp_path):
    (lexical_copy(release, tmp_path) / "gold.csv").unlink()
    with pytest.raises(BenchmarkError) as error:
        find_items(choice(tmp_path))
    names(
        error.value,
        "zrc datasets:pull sLM21-dataset",
        f"{tmp_path}/lexical/dev",
        "60",
        "gold.csv",
        "zip",
        "2021",
        "index.json",
    )


def test_every_fault_of_a_gold_file_is_listed(release, tmp_path):
    folder = lexical_copy(release, tmp_path)
    rows = read_gold(folder)
    rows[0]["correct"] = "yes"  # id 0, en-us
    rows[2]["voice"] = ""
    rows[6] = {**rows[7]}  # id 1, en-us: the word is gone, the non-word stands twice
    rows[12]["frequency"] = "often"
    rows[20]["frequency"] = "7"  # id 3, en-us+f3: id 3 has 5 elsewhere
    write_gold(folder, LEXICAL, rows)
    lost = name_of("dev", 9, "de", 1)
    (folder / f"{lost}.wav").unlink()
    gone, twice = name_of("dev", 1, "en-us", 1), name_of("dev", 1, "en-us", 0)
    odd = ("0 voice '': positive", "0 voice 'en-us': negative+negative", "0 voice 'en-us+f3': negative",
           "1 voice 'en-us': negative+negative")  # fmt: skip
    with pytest.raises(BenchmarkError) as error:
        find_items(choice(tmp_path))
    expected = (
        (folder, "12 problems", "60 recordings"),
        ("correct", "1", "0", "(1): gold.csv line 2"),
        ("frequency", "(1): gold.csv line 14"),
        ("frequency", "length", "voices", "(2): id 2, id 3"),
        ("gold.csv", f"(1): {gone}.wav"),
        ("gold.csv", f"(1): {lost}.wav"),
        ("gold.csv", f"(1): {twice}"),
        ("voice", "(1): gold.csv line 4"),
        ("positive", "negative", f"(4): {', '.join(odd)}"),
        ("fetch", "release", "data"),
    )
    for line, facts in zip(str(error.value).splitlines(), expected, strict=True):
        names(line, *facts)


def test_a_gold_file_of_other_columns_is_refused(release, tmp_path):
    folder = lexical_copy(release, tmp_path)
    write_gold(folder, ("filename", "id", "voice", "word", "phones", "correct"), [])
    with pytest.raises(BenchmarkError) as error:
        find_items(choice(tmp_path))
    names(
        error.value,
        "zrc datasets:pull sLM21-dataset",
        "frequency, length",
        "filename, id, voice, word, phones, correct",
        f"{folder}/gold.csv",
    )


def test_a_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(BenchmarkError) as error:
        find_items(choice(tmp_path, split="test"))
    names(error.value, "zrc datasets:pull sLM21-dataset", tmp_path, "0", "lexical/test", "data.path")
    with pytest.raises(BenchmarkError) as raised:
        find_items(choice(tmp_path / "nowhere"))
    names(raised.value, "data.path")


def test_every_unreadable_recording_is_listed_and_nothing_written(release, encoder, tmp_path):
    folder = lexical_copy(release, tmp_path)
    stereo, empty, noise = sorted(folder.glob("*.wav"))[:3]
    soundfile.write(stereo, np.zeros((800, 2)), 16000)
    soundfile.write(empty, np.zeros(0), 16000)
    noise.write_bytes(b"no audio")
    table = tmp_path / "items"
    shards = encode_found(find_items(choice(tmp_path)), encoder, shard_size=40, work=tmp_path / "work")
    with pytest.raises(BenchmarkError) as error:
        tables.write_shards(shards, tables.ITEMS, table, encoder.contract)
    assert not table.exists()
    first, *lines = str(error.value).splitlines()
    names(first, folder, "3 problems", "60 recordings")
    by_place = {line.rpartition("(1): ")[2]: line for line in lines}
    names(by_place[empty.stem], "0 samples")
    names(by_place[stereo.stem], "2 channels")
    names(by_place[noise.stem], "unreadable audio")

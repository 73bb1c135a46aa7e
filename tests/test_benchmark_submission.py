"""From a release through the stage, the item scores and the command to a submission, and back through the rules."""

import polars as pl
import pytest
from typer.testing import CliRunner

from alignslm import audio, tables
from alignslm.artifacts import Artifacts
from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.scoring import score_items
from alignslm.benchmarks.submission import (
    Part,
    meta_problems,
    recording_scores,
    write_submission,
)
from alignslm.cli import app
from alignslm.config.loading import load_experiment
from alignslm.encoder import prepare_encoder
from stages import benchmarks
from tests.messages import names
from tests.micro import list_outside
from tests.sample_experiment import edit, write_experiment
from tests.test_benchmark_slm21 import figures, oracle
from tests.test_benchmarks import CONFIG
from tests.tiny_lm import tiny_lm
from tests.tiny_slm21 import read_gold, tiny_slm21

META = """\
username: someone
benchmark_name: sLM21
model_info: {system_description: a unit LM, train_set: LibriSpeech, gpu_budget: '12'}
publication: {authors: A. Author, institution: a university, publication_year: 2026, paper_title: a title}
open_source: true
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment whose benchmarks stage has run on both tasks of a tiny release, with a model's scores."""
    root = write_experiment(tmp_path_factory.mktemp("experiment"))
    release = tiny_slm21(root / "release", voices=("en-us", "de"))
    edit(root / "params.yaml", ("  swuggy: swuggy", "  words: swuggy\n  sentences: sblimp"))
    edit(root / "experiments/encoder/mfcc.yaml", ("num_units: 100", "num_units: 20"))
    for kind in ("swuggy", "sblimp"):
        text = f"kind: {kind}\nsplit: dev\ndata: {{kind: folder, path: {release}}}\n"
        (root / f"experiments/benchmark/{kind}.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        list_outside(root)
        Artifacts().utterances.mkdir(parents=True)  # dvc.yaml names them; only toys read them
        waveforms = [audio.decode(file.read_bytes())[0] for file in sorted(release.glob("syntactic/dev/*.wav"))]
        prepare_encoder(load_experiment().encoder, waveforms, Artifacts().encoder)
        scored = []
        for name in ("words", "sentences"):
            benchmarks.main(name)
            items = tables.read(tables.ITEMS, Artifacts().benchmark(name))
            scored.append(score_items(items, tiny_lm(), CONFIG, benchmark=name, model="r1", batch_size=8))
        tables.write(pl.concat(scored), tables.ITEM_SCORES, Artifacts().item_scores("r1"))
    assert not (root / ".work").exists() or not list((root / ".work").rglob("*.parquet"))
    return root


def parts_of(root):
    scores = tables.read(tables.ITEM_SCORES, root / "artifacts/eval/r1/item_scores.parquet")
    return [
        Part(
            task, "dev", tables.read(tables.ITEMS, root / "artifacts/benchmarks" / name), scores.filter(benchmark=name)
        )
        for name, task in (("words", "lexical"), ("sentences", "syntactic"))
    ]


def test_the_official_rules_find_our_figures_in_the_submission(experiment, tmp_path):
    (tmp_path / "meta.yaml").write_text(META)
    out = tmp_path / "submission"
    told = CliRunner().invoke(
        app, ["export-zrc", "r1", str(out), "-C", str(experiment), "--meta", str(tmp_path / "meta.yaml")]
    )
    assert told.exit_code == 0
    assert told.output.splitlines() == [
        f"{out}/lexical/dev.txt: 40 scores of r1",
        f"{out}/syntactic/dev.txt: 20 scores of r1",
        f"score it: zrc benchmarks:run sLM21 {out} -s dev -t lexical syntactic",
    ]
    for part in parts_of(experiment):
        lines = [line.split(" ") for line in (out / part.task / "dev.txt").read_text().splitlines()]
        score = {name: float(text) for name, text in lines}
        wavs = {file.stem for file in (experiment / "release" / part.task / "dev").glob("*.wav")}
        assert set(score) == wavs
        assert len(lines) == len(wavs)
        _, groups = oracle(read_gold(experiment / "release" / part.task / "dev"), score)
        scores = part.scores.with_columns(model=pl.lit("m"))
        assert figures(scores) == {name: (pytest.approx(value), n) for name, (value, n) in groups.items()}
        found = dict(recording_scores(part).iter_rows())
        assert found == score  # to the last digit


def test_without_meta_a_template_is_written_and_what_is_to_be_filled_in_is_told(experiment, tmp_path):
    told = CliRunner().invoke(app, ["export-zrc", "r1", str(tmp_path), "-C", str(experiment)])
    assert told.exit_code == 0
    assert sum("meta.yaml: publication.authors" in line for line in told.output.splitlines()) == 1
    assert len(told.output.splitlines()) == 3 + 11


def test_a_recording_without_a_score_is_refused(experiment, tmp_path):
    part = parts_of(experiment)[0]
    lost = part.items.row(by_predicate=(pl.col("pair_id") == "3") & (pl.col("voice") == "de") & (pl.col("polarity") == "negative"), named=True)["item_id"]  # fmt: skip # noqa: E501
    here = (pl.col("pair_id") == "3") & (pl.col("voice") == "de")
    for value in (None, float("nan"), float("-inf")):
        nats = pl.when(here).then(pl.lit(value, pl.Float64)).otherwise("negative_logprob").alias("negative_logprob")
        broken = part._replace(scores=part.scores.with_columns(nats))
        with pytest.raises(BenchmarkError) as error:
            write_submission(tmp_path, [broken], meta=None, year=2026)
        names(error.value, "1", "40", "lexical/dev", lost)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", None),
        ("a unit LM", "''", ("meta.yaml", "model_info.system_description", "1")),
        ("a university", "<institution>", ("meta.yaml", "publication.institution")),
        ("sLM21", "abxLS", ("meta.yaml", "sLM21", "benchmark_name")),
        ("username: someone\n", "", ("meta.yaml", "username", "Field required")),
        ("2026", "soon", ("meta.yaml", "publication.publication_year", "integer")),
        ("open_source", "open source", ("meta.yaml", "Field required", "open_source")),
    ],
)  # fmt: skip
def test_meta_is_checked_as_the_toolkit_does(tmp_path, old, new, problem):
    (tmp_path / "meta.yaml").write_text(META.replace(old, new))
    found = meta_problems(tmp_path / "meta.yaml")
    assert bool(found) == (problem is not None)
    names("".join(found[:1]), *(problem or ()))


def test_an_experiment_without_the_release_and_two_of_one_split_are_refused(experiment, tmp_path):
    root = write_experiment(tmp_path)
    empty = pl.DataFrame(schema=dict(tables.ITEM_SCORES.schema))
    tables.write(empty, tables.ITEM_SCORES, root / "artifacts/eval/r1/item_scores.parquet")
    told = CliRunner().invoke(app, ["export-zrc", "r1", str(tmp_path / "out"), "-C", str(root)])
    assert told.exit_code == 1
    names(told.stderr.strip(), "swuggy: swuggy", "dvc repro", "sWUGGY", "sBLIMP", "params.yaml")
    edit(root / "params.yaml", ("  swuggy: swuggy", "  a: swuggy\n  b: swuggy"))
    choice = (experiment / "experiments/benchmark/swuggy.yaml").read_text()
    (root / "experiments/benchmark/swuggy.yaml").write_text(choice)
    items = tables.read(tables.ITEMS, experiment / "artifacts/benchmarks/words")
    tables.write_shards([items], tables.ITEMS, root / "artifacts/benchmarks/a")
    told = CliRunner().invoke(app, ["export-zrc", "r1", str(tmp_path / "out"), "-C", str(root)])
    names(told.stderr.strip(), "benchmarks.b", "lexical/dev")

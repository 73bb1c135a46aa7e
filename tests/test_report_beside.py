"""Published figures beside this run's: every kind in its column, under its own protocol."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from alignslm.config.evaluation import BenchmarkConfig
from alignslm.config.loading import load_experiment
from alignslm.config.sources import FolderSource, HubSource
from alignslm.report.formatting import style
from alignslm.report.metrics import Metric, Report
from alignslm.report.page import paragraphs_of
from alignslm.report.published import COLUMNS, column_of, protocols_of, published_sheet
from tests.messages import names
from tests.report_world import EXPERIMENT
from tests.sample_experiment import edit, write_experiment

ROOT = Path(__file__).parents[1]
CHOICES = {
    "swuggy": "swuggy", "sblimp": "sblimp-test", "spoken": "sstorycloze", "topic": "tstorycloze", "salmon": "salmon",
    "numbered": "swuggy-slamkit",
}  # fmt: skip


def benchmarks(*chosen):
    """Return configs of experiments/benchmark by the names in CHOICES."""
    adapter = TypeAdapter(dict[str, BenchmarkConfig])
    return adapter.validate_python({
        name: YAML(typ="safe").load(ROOT / "experiments" / "benchmark" / f"{CHOICES[name]}.yaml") for name in chosen
    })  # fmt: skip


def run(configs):
    """Return an experiment with two systems and these benchmarks."""
    params = {"systems": {name: EXPERIMENT.params.systems[name] for name in ("base", "r1")}}
    return EXPERIMENT.model_copy(update={"params": EXPERIMENT.params.model_copy(update=params), "benchmarks": configs})


def protocols(experiment):
    return paragraphs_of(report(), experiment)["protocols"]


def report(*figures):
    """Figures (model, benchmark, metric, value) with an interval of a point on either side."""
    metrics = [
        Metric(model=model, benchmark=benchmark, metric=metric, value=value, stderr=0.005,
               ci95=(value - 0.01, value + 0.01), n=9, n_missing=0, higher_is_better=True)
        for model, benchmark, metric, value in figures
    ]  # fmt: skip
    return Report(metrics=tuple(metrics), comparisons=(), flags=())


def ours(sheet):
    return {row[0].text: [(cell.text, cell.detail) for cell in row[1:]] for row in sheet.rows if row[0].mark == "ours"}


FIGURES = (
    ("base", "swuggy", "accuracy", 0.712), ("base", "swuggy", "accuracy/in-vocab", 0.801),
    ("base", "sblimp", "accuracy", 0.58), ("base", "spoken", "accuracy", 0.55), ("base", "topic", "accuracy", 0.7),
    ("base", "salmon", "accuracy/gender_consistency", 0.9),
    ("r1", "swuggy", "accuracy", 0.75), ("r1", "continuation", "heldout_judge_score", 3.5),
)  # fmt: skip


def test_official_kinds_stand_in_the_papers_columns_without_a_word_of_toys():
    chosen = run(benchmarks("swuggy", "sblimp", "spoken", "topic", "salmon"))
    sheet = published_sheet(report(*FIGURES), chosen)
    assert sheet.headings == ("system", *COLUMNS, "judge (1 to 5)")
    assert ours(sheet) == {
        "this run: base": [
            ("71.2 ± 1.0", "in-vocab 80.1 ± 1.0"), ("58.0 ± 1.0", ""), ("55.0 ± 1.0", ""), ("70.0 ± 1.0", ""), ("–", "")
        ],
        "this run: r1": [("75.0 ± 1.0", ""), ("–", ""), ("–", ""), ("–", ""), ("3.50 ± 0.01", "")],
    }  # fmt: skip
    text = " ".join(protocols(chosen))
    assert "toy" not in text.lower()
    assert protocols_of(chosen) == ["official"]
    names(
        text, "`swuggy` (dev split)", "`sblimp` (test split)", "`spoken`", "`topic`", "`salmon`", "GPT-4o",
        "of the ending given what comes before, per unit",
    )  # fmt: skip


def test_toys_copies_and_official_releases_never_share_a_row():
    (official,) = benchmarks("swuggy").values()
    mixed = run({**EXPERIMENT.benchmarks, "official": official, "again": official, **benchmarks("numbered")})
    assert protocols_of(mixed) == ["official", "copy", "toy"]
    figures = [("base", "swuggy", "accuracy", 0.5), ("base", "storycloze", "accuracy/topic", 0.6)]
    figures += [("base", name, "accuracy", 0.7) for name in ("official", "again", "numbered")]
    rows = ours(published_sheet(report(*figures), mixed))
    assert rows["this run: base"][0] == ("70.0 ± 1.0", "again 70.0 ± 1.0")
    assert rows["this run: base (slamkit's copies)"][0] == ("70.0 ± 1.0", "")
    assert rows["this run: base (toy protocol)"][:4] == [("50.0 ± 1.0", ""), ("–", ""), ("–", ""), ("60.0 ± 1.0", "")]
    told = protocols(mixed)
    assert sum("toy protocol" in sentence for sentence in told) == 1
    (copied,) = (sentence for sentence in told if "`numbered`" in sentence)
    names(copied, "slamkit's", "number")


def test_an_embedded_run_has_rows_of_the_toy_protocol_only():
    sheet = published_sheet(report(("base", "swuggy", "accuracy", 0.5)), EXPERIMENT)
    assert protocols_of(EXPERIMENT) == ["toy"]
    assert set(ours(sheet)) == {"this run: base (toy protocol)"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swuggy", ("official", "sWUGGY")), ("topic", ("official", "T-StoryCloze")),
        ("numbered", ("copy", "sWUGGY")), ("salmon", None),
    ],
)  # fmt: skip
def test_each_kind_has_its_column_or_none(name, expected):
    (config,) = benchmarks(name).values()
    assert column_of(config) == expected


def test_copies_have_a_column_only_if_the_paper_has_it():
    (copied,) = benchmarks("numbered").values()
    for name, expected in (("sSC", ("copy", "S-StoryCloze")), ("swuggy_oov", None)):
        assert column_of(copied.model_copy(update={"data": FolderSource(kind="folder", path=f"a/{name}")})) == expected
    hub = HubSource(kind="hub", repo="a/b", revision="main")
    assert column_of(copied.model_copy(update={"data": hub})) is None


def test_splits_copies_and_conventions_are_read_from_the_experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("SLAM_REFERENCE_PATH", str(tmp_path))
    root = write_experiment(tmp_path)
    for name in ("swuggy", "sblimp-slamkit"):
        text = (ROOT / "experiments" / "benchmark" / f"{name}.yaml").read_text()
        (root / "experiments" / "benchmark" / f"official-{name}.yaml").write_text(text)
    edit(
        root / "params.yaml",
        ("  swuggy: swuggy\n", "  swuggy: official-swuggy\n  copied: official-sblimp-slamkit\n"),
        ("likelihood: conditional", "likelihood: joint"), ("reduction: mean", "reduction: sum"),
    )  # fmt: skip
    found = load_experiment(root)
    assert [column_of(found.benchmarks[name]) for name in ("swuggy", "copied")] == [
        ("official", "sWUGGY"), ("copy", "sBLIMP"),
    ]  # fmt: skip
    names(" ".join(protocols(found)), "`swuggy` (dev split)", "of the whole item, summed over units")


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("accuracy", "sblimp"),
        ("accuracy/in-vocab", "sblimp, in-vocab"),
        ("accuracy@mean", "sblimp (per unit)"),
        ("accuracy/in-vocab@sum-eos", "sblimp, in-vocab (summed over units, end of sequence counted)"),
        ("accuracy@joint-sum", "sblimp (of the whole item, summed over units)"),
        ("accuracy/topic@conditional-mean", "sblimp, topic (of the ending given what comes before, per unit)"),
        ("missing_ratio", "sblimp, missing_ratio"),
    ],
)
def test_every_convention_has_a_label_of_its_own(metric, label):
    assert style("sblimp", metric).label == label

"""Published figures beside this run's: every kind in its column, under its own protocol."""

from pathlib import Path

import pytest

from alignslm.config.loading import load_experiment
from alignslm.report.beside import COLUMNS, column_of, protocols_of, published_sheet
from alignslm.report.inputs import Measured, setting_of
from alignslm.report.metrics import Metric, Report
from alignslm.report.protocol import protocols
from alignslm.report.wording import style
from tests.messages import names
from tests.report_world import SETTING
from tests.sample_experiment import edit, write_experiment

ROOT = Path(__file__).parents[1]
OFFICIAL = {
    "swuggy": Measured(kind="swuggy", split="dev", copy_of=None),
    "sblimp": Measured(kind="sblimp", split="test", copy_of=None),
    "spoken": Measured(kind="sstorycloze", split=None, copy_of=None),
    "topic": Measured(kind="tstorycloze", split=None, copy_of=None),
    "salmon": Measured(kind="salmon", split=None, copy_of=None),
}
COPIED = {"numbered": Measured(kind="reformatted", split=None, copy_of="swuggy_inter")}
TOYS = dict(SETTING.benchmarks)


def setting(benchmarks):
    return SETTING.model_copy(update={"models": ("base", "r1"), "benchmarks": benchmarks})


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
    ("r1", "swuggy", "accuracy", 0.75), ("r1", "continuation", "heldout_judge", 3.5),
)  # fmt: skip


def test_official_kinds_stand_in_the_papers_columns_without_a_word_of_toys():
    chosen = setting(OFFICIAL)
    sheet = published_sheet(report(*FIGURES), chosen)
    assert sheet.headings == ("system", *COLUMNS, "judge (1 to 5)")
    assert ours(sheet) == {
        "this run: base": [
            ("71.2 ± 1.0", "in-vocab 80.1 ± 1.0"), ("58.0 ± 1.0", ""), ("55.0 ± 1.0", ""), ("70.0 ± 1.0", ""), ("–", "")
        ],
        "this run: r1": [("75.0 ± 1.0", ""), ("–", ""), ("–", ""), ("–", ""), ("3.50 ± 0.01", "")],
    }  # fmt: skip
    text = " ".join([sheet.caption, *protocols(chosen)])
    assert "toy" not in text.lower()
    assert "comparable as far as the protocols told above agree" in sheet.caption
    for told in (
        "`swuggy` (dev split): sWUGGY as released", "`sblimp` (test split): sBLIMP", "`spoken`: spoken StoryCloze",
        "`topic`: topic StoryCloze", "`salmon`: SALMon has no column here", "GPT-4o's score in print",
        "of the ending given what comes before, per unit",
    ):  # fmt: skip
        assert told in text


def test_toys_copies_and_official_releases_never_share_a_row():
    mixed = setting({**TOYS, "official": OFFICIAL["swuggy"], "again": OFFICIAL["swuggy"], **COPIED})
    assert protocols_of(mixed) == ["official", "copy", "toy"]
    figures = [("base", "swuggy", "accuracy", 0.5), ("base", "storycloze", "accuracy/topic", 0.6)]
    figures += [("base", name, "accuracy", 0.7) for name in ("official", "again", "numbered")]
    rows = ours(published_sheet(report(*figures), mixed))
    assert rows["this run: base"][0] == ("70.0 ± 1.0", "again 70.0 ± 1.0")
    assert rows["this run: base (slamkit's copies)"][0] == ("70.0 ± 1.0", "")
    assert rows["this run: base (toy protocol)"][:4] == [("50.0 ± 1.0", ""), ("–", ""), ("–", ""), ("60.0 ± 1.0", "")]
    told = protocols(mixed)
    assert sum("toy protocol" in sentence for sentence in told) == 1
    assert any(
        sentence.startswith("`numbered`: a copy in slamkit's form: pairs are told by number") for sentence in told
    )


def test_an_embedded_run_says_that_nothing_is_comparable():
    sheet = published_sheet(report(("base", "swuggy", "accuracy", 0.5)), SETTING)
    assert sheet.caption.endswith("this run: under another protocol: not comparable.")
    assert set(ours(sheet)) == {"this run: base (toy protocol)"}


@pytest.mark.parametrize(
    ("kind", "copy_of", "expected"),
    [
        ("swuggy", None, ("official", "sWUGGY")), ("tstorycloze", None, ("official", "T-StoryCloze")),
        ("toy-storycloze", None, ("toy", "T-StoryCloze")), ("reformatted", "sSC", ("copy", "S-StoryCloze")),
        ("reformatted", "swuggy_oov", None), ("reformatted", None, None), ("salmon", None, None),
    ],
)  # fmt: skip
def test_each_kind_has_its_column_or_none(kind, copy_of, expected):
    assert column_of(kind, copy_of) == expected


def test_splits_copies_and_conventions_are_read_from_the_experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("SLAM_REFERENCE_PATH", str(tmp_path))
    root = write_experiment(tmp_path)
    for name in ("swuggy", "sblimp-slamkit"):
        text = (ROOT / "experiments" / "benchmark" / f"{name}.yaml").read_text()
        (root / "experiments" / "benchmark" / f"official-{name}.yaml").write_text(text)
    edit(
        root / "params.yaml",
        ("  swuggy: swuggy\n", "  swuggy: official-swuggy\n  copied: official-sblimp-slamkit\n"),
        ("context: given", "context: scored"), ("normalisation: mean", "normalisation: sum"),
    )  # fmt: skip
    found = setting_of(load_experiment(root))
    assert found.benchmarks == {
        "swuggy": Measured(kind="swuggy", split="dev", copy_of=None),
        "copied": Measured(kind="reformatted", split=None, copy_of="sblimp"),
    }
    assert found.convention == "scored-sum"
    names(" ".join(protocols(found)), "log-likelihood")


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("accuracy", "sblimp"),
        ("accuracy/in-vocab", "sblimp, in-vocab"),
        ("accuracy@mean", "sblimp (per unit)"),
        ("accuracy/in-vocab@sum-eos", "sblimp, in-vocab (summed over units, end of sequence counted)"),
        ("accuracy@scored-sum", "sblimp (of the whole item, summed over units)"),
        ("accuracy/topic@given-mean", "sblimp, topic (of the ending given what comes before, per unit)"),
        ("unmeasured", "sblimp, unmeasured"),
    ],
)
def test_every_convention_has_a_label_of_its_own(metric, label):
    assert style("sblimp", metric).label == label

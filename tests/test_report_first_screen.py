"""The first screen: question, answer, one plot, two picked prompts; and reports of experiments that lack something."""

import dataclasses
import html
import re

import polars as pl
import pytest

from alignslm import tables
from alignslm.report.examples import first_changes
from alignslm.report.findings import findings_of
from alignslm.report.formatting import headline
from alignslm.report.inputs import MAX_CLIPS, read_inputs
from alignslm.report.page import paragraphs_of
from alignslm.report.writing import report_of, write_report
from tests import report_world
from tests.messages import names
from tests.report_world import EXPERIMENT, ORIGIN, build

LONG = [f"{'abcd-' * 7}{place:05d}" for place in range(5)]  # 40 letters: the longest that a system may have


def of(**params):
    return EXPERIMENT.model_copy(update={"params": EXPERIMENT.params.model_copy(update=params)})


def only(*systems):
    return of(systems={name: EXPERIMENT.params.systems[name] for name in systems})


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def inputs(artifacts):
    return read_inputs(artifacts, EXPERIMENT)


@pytest.fixture(scope="module")
def report(inputs):
    return report_of(inputs)


def read(inputs, folder):
    """Write a report; return its page and its Markdown."""
    write_report(inputs, ORIGIN, folder)
    return html.unescape((folder / "index.html").read_text()), (folder / "report.md").read_text()


def judged(*rows):
    """CONTINUATION_METRICS of the training judge: model, prompt, sample, score."""
    cells = [(model, f"{prompt}-{draw}", prompt, draw, "judge_score", score) for model, prompt, draw, score in rows]
    return pl.DataFrame(cells, schema=dict(tables.CONTINUATION_METRICS.schema), orient="row")


def test_changes_are_of_first_continuations_and_leave_out_what_was_not_scored():
    rows = judged(
        ("base", "p", 0, 2.0), ("base", "p", 1, 5.0), ("r1", "p", 1, 1.0), ("r1", "p", 0, 3.5),
        ("base", "q", 0, 4.0), ("r1", "q", 0, 1.5), ("base", "o", 0, None), ("r1", "o", 0, 5.0),
        ("base", "n", 0, 1.0), ("base", "a", 0, 3.0), ("r1", "a", 0, 4.5),
    )  # fmt: skip
    assert first_changes(rows, "r1", "base").rows() == [("q", -2.5), ("a", 1.5), ("p", 1.5)]


def test_the_picked_prompts_are_the_extremes_and_say_so(inputs, tmp_path):
    first = {}
    for row in inputs.judged.sort("sample_index", descending=True).iter_rows(named=True):
        if row["metric"] == "judge_score":
            first[row["model"], row["prompt_id"]] = row["value"]
    changes = {
        prompt: first["r2", prompt] - first["base", prompt] for prompt in inputs.judged["prompt_id"].unique()
    }  # no first score is missing here
    best, worst = max(changes, key=changes.get), min(changes, key=changes.get)
    assert [example.prompt_id for example in inputs.picked] == [best, worst]
    assert [[take.model for take in example.continuations] for example in inputs.picked] == [["base", "r2"]] * 2
    page, _ = read(inputs, tmp_path)
    said = [" ".join(text.split()) for text in re.findall(r"<h2>(.*?)</h2>", page, re.DOTALL)]
    kind = "largest loss" if changes[worst] < 0 else "smallest gain"
    signed = f"{changes[worst]:+.2f}".replace("-", "−")
    assert said == [
        f"Picked: largest gain of 40 prompts, {changes[best]:+.2f}", f"Picked: {kind} of 40 prompts, {signed}",
    ]  # fmt: skip


def test_examples_are_prompts_that_base_and_result_do_not_score_the_same(artifacts, inputs, tmp_path, monkeypatch):
    same = inputs.changes["prompt_id"].sort()[:2].to_list()
    scores = inputs.judged.with_columns(
        value=pl.when(pl.col("prompt_id").is_in(same) & (pl.col("metric") == "judge_score"))
        .then(3.0 + 0.001 * (pl.col("model") == "base"))
        .otherwise("value")
    )
    whole = tables.read
    monkeypatch.setattr(
        tables, "read",
        lambda table, path, *columns: scores.filter(model=path.parent.name)
        if table is tables.CONTINUATION_METRICS else whole(table, path, *columns),
    )  # fmt: skip
    found = read_inputs(artifacts, EXPERIMENT)
    assert [example.prompt_id for example in found.examples] == sorted(found.changes["prompt_id"])[2:6]
    assert found.alike == 2
    names(read(found, tmp_path)[0], "not score the same (38 of 40)")


def test_a_judge_that_cannot_tell_base_from_truth_is_the_first_thing_said(report, inputs, tmp_path):
    assert findings_of(report, EXPERIMENT).blind == {}
    key = ("ground-truth", "base", "continuation", "heldout_judge_score")
    for changed in ({"p_corrected": 0.2}, {"delta": -0.5}):
        comparisons = tuple(
            c.model_copy(update=changed) if (c.model, c.against, c.benchmark, c.metric) == key else c
            for c in report.comparisons
        )
        found = report.model_copy(update={"comparisons": comparisons})
        first, *others = paragraphs_of(found, EXPERIMENT)["warnings"]
        names(first, "held-out judge", f"`{EXPERIMENT.params.heldout_judge}`", "base", "true continuations")
        assert not any("cannot tell" in text for text in others)
    few = report.model_copy(
        update={"comparisons": tuple(c.model_copy(update={"p_corrected": None}) for c in report.comparisons)}
    )
    assert findings_of(few, EXPERIMENT).blind == {}  # too few to say
    equal = inputs.judged.with_columns(
        value=pl.when(pl.col("metric") == "judge_score").then(3.0).otherwise(pl.col("value"))
    )
    page, markdown = read(dataclasses.replace(inputs, judged=equal), tmp_path)
    assert page.index("cannot tell base") < page.index("Not shown: on 40") < page.index("<svg") < page.index("<audio")
    assert markdown.index("cannot tell base") < markdown.index("Not shown: on 40")
    assert "is 0.00 (all equal): not" in markdown


@pytest.mark.parametrize(
    ("change", "word", "verdict"),
    [
        ({}, "Yes", "a gain"),
        ({"delta": -0.5}, "No", "a loss"),
        ({"p": 0.3, "p_corrected": 0.3}, "Not shown", "not significantly different from zero"),
        (
            {"p": 0.012, "p_corrected": 0.3},
            "Not shown",
            "not significantly different from zero once corrected for the other metrics (p 0.012, corrected 0.3)",
        ),
        ({"p_corrected": None}, "Unknown", "on too few prompts to say"),
    ],
)
def test_the_answer_is_the_verdict_of_the_comparison(report, change, word, verdict):
    key = ("r2", "base", "judge_score")
    comparisons = tuple(
        c.model_copy(update=change) if (c.model, c.against, c.metric) == key else c for c in report.comparisons
    )
    answer = paragraphs_of(report.model_copy(update={"comparisons": comparisons}), EXPERIMENT)["findings"][0]
    assert (answer.split(":")[0], answer.endswith(f": {verdict}.")) == (word, True)
    names(answer, "r2", "base", "40 held-out prompts", "95 % interval")


def test_markdown_shows_the_same_picture(inputs, tmp_path):
    _, markdown = read(inputs, tmp_path)
    (alt, path), *others = re.findall(r"!\[(.*)\]\((.*)\)", markdown)
    assert (path, others) == ("plots/answer.svg", [])
    assert (tmp_path / path).exists()
    names(alt, "training judge", "held-out judge", "r2", "ground-truth")


def test_every_column_is_explained(report, inputs, tmp_path):
    page, _ = read(inputs, tmp_path)
    (told,) = re.findall(r"<summary>Meaning of the columns</summary><dl>(.*?)</dl>", page, re.DOTALL)
    found = re.findall(r"<dt>(.+?)</dt><dd>(.+?)</dd>", " ".join(told.split()))
    assert len(found) == len(headline(report)) == 10
    assert len({meaning for _, meaning in found}) == 10
    sblimp = next(meaning for name, meaning in found if name.startswith("sblimp"))
    names(sblimp, "grammatical", "Chance is 50 %")


def without(inputs, *metrics):
    return dataclasses.replace(inputs, judged=inputs.judged.filter(~pl.col("metric").is_in(metrics)))


def silent(example):
    takes = tuple(dataclasses.replace(take, flac=b"", text=None) for take in example.continuations)
    return dataclasses.replace(example, continuations=takes)


LACKING = {
    "only the result": (only("r2"), lambda inputs: inputs, "Unknown: "),
    "base and result": (only("base", "r1", "r2"), lambda inputs: inputs, "no topline"),
    "no held-out judge": (of(heldout_judge=EXPERIMENT.params.judge), lambda inputs: inputs, "No judge was held out"),
    "no held-out scores": (EXPERIMENT, lambda inputs: without(inputs, "heldout_judge_score"), "Yes: "),
    "no scores": (EXPERIMENT, lambda inputs: without(inputs, "judge_score", "heldout_judge_score"), "Unknown: "),
    "no benchmarks": (
        EXPERIMENT.model_copy(update={"benchmarks": {}}),
        lambda inputs: dataclasses.replace(inputs, item_scores=inputs.item_scores.head(0)),
        "Yes: ",
    ),
    "no predicted quality": (
        EXPERIMENT, lambda inputs: dataclasses.replace(inputs, mos=inputs.mos.head(0)), "Yes: ",
    ),
    "no audio": (
        EXPERIMENT,
        lambda inputs: dataclasses.replace(
            inputs, picked=tuple(map(silent, inputs.picked)), examples=tuple(map(silent, inputs.examples))
        ),
        "no audio",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lacking", LACKING)
def test_a_report_does_without(artifacts, tmp_path, lacking):
    experiment, lose, said = LACKING[lacking]
    page, markdown = read(lose(read_inputs(artifacts, experiment)), tmp_path)
    assert said in (page if lacking == "no audio" else markdown)
    visible = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page, flags=re.DOTALL)
    for text in (visible, markdown):
        assert not re.search(r"\bNone\b|\bnan\b|[-−]0(\.0+)?(?![.\d])|\[\+0\.0+, \+0\.0+\]", text)


def test_twelve_systems_with_long_names_fit_and_play_no_more_clips(tmp_path, monkeypatch):
    for name in LONG:
        monkeypatch.setitem(report_world.SHIFTS, name, 0.1)
    base = EXPERIMENT.params.systems["base"]
    experiment = of(systems={**EXPERIMENT.params.systems, **dict.fromkeys(LONG, base)})
    found = read_inputs(build(tmp_path / "artifacts"), experiment)
    clips = sum(1 + len(example.continuations) for example in found.examples)
    assert (len(found.examples), clips <= MAX_CLIPS) == (2, True)
    page, _ = read(found, tmp_path)
    assert all(name in page for name in LONG)
    answer, words = ((tmp_path / "plots" / f"{name}.svg").read_text() for name in ("answer", "models-num-words"))
    assert not any("abcd" in text for text in re.findall(r"<text.*?</text>", answer))
    beside = [line for line in re.findall(r">([^<>\n]+)</t(?:ext|span)>", words) if "abcd" in line]
    assert "".join(beside) == "".join(LONG)
    assert max(map(len, beside)) <= 16
    (width,) = re.findall(r'viewBox="0 0 ([\d.]+) ', words)
    assert float(width) == 288

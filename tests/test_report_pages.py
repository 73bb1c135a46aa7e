"""What the written report shows: self-contained, equal in bytes for equal inputs, honest about what it flags."""

import base64
import dataclasses
import html
import io
import itertools
import re
import shutil
import warnings
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from alignslm import tables
from alignslm.audio import decode
from alignslm.config.loading import load_experiment
from alignslm.integrity import DamagedError
from alignslm.provenance import content_id
from alignslm.report import plots
from alignslm.report.drawing import VARIABLES, inline
from alignslm.report.findings import findings_of
from alignslm.report.formatting import change, heading, headline, percent, with_error, with_interval
from alignslm.report.inputs import TrainingLog, read_inputs
from alignslm.report.metrics import Comparison
from alignslm.report.page import paragraphs_of
from alignslm.report.plots import score_counts, training_table
from alignslm.report.published import published_sheet
from alignslm.report.run_info import origin_of
from alignslm.report.systems import evaluated, topline
from alignslm.report.tabulate import comparison_sheet, headline_sheet, pairs_sheet, systems_sheet
from alignslm.report.writing import report_of, write_report
from tests.messages import names
from tests.report_world import EXPERIMENT, ORIGIN, RATE_HZ, SHIFTS, build

LOGPS = "training-log-probabilities.svg"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def inputs(artifacts):
    return read_inputs(artifacts, EXPERIMENT)


@pytest.fixture(scope="module")
def report(inputs):
    return report_of(inputs)


@pytest.fixture(scope="module")
def written(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    write_report(inputs, ORIGIN, folder)
    return folder


class Elements(HTMLParser):
    """Collects start tags with attributes, and checks that they nest."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self):
        super().__init__()
        self.found, self.open, self.faults = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.fixture(scope="module")
def elements(written):
    parser = Elements()
    parser.feed((written / "index.html").read_text())
    return parser


def test_equal_inputs_give_equal_bytes(inputs, written, tmp_path):
    write_report(inputs, ORIGIN, tmp_path)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert {"index.html", "report.md", "metrics.json", "summary.json", "plots/train_loss.json"} <= set(map(str, files))
    assert [name for name in files if (written / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_plots_of_an_earlier_report_are_removed_and_other_files_kept(inputs, tmp_path):
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "scores-r9.svg").write_text("old")
    (plots / "training.csv").write_text("old")
    (plots / "notes.txt").write_text("mine")
    write_report(inputs, ORIGIN, tmp_path)
    assert not (plots / "scores-r9.svg").exists()
    assert not (plots / "training.csv").exists()
    assert (plots / "notes.txt").exists()


def test_page_needs_no_network_and_no_script(written, elements):
    text = (written / "index.html").read_text()
    assert not re.search(r"https?://", text)
    assert "@import" not in text
    assert {tag for tag, _ in elements.found} & {"script", "link", "iframe", "object"} == set()
    sources = [value for _, attrs in elements.found for key, value in attrs.items() if key in {"src", "href"}]
    assert sources
    assert [
        source
        for source in sources
        if not source.startswith(("data:audio/flac;base64,", "data:audio/wav;base64,", "#"))
    ] == []
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_page_nests_and_every_id_is_unique_and_every_anchor_lands(elements):
    assert (elements.open, elements.faults) == ([], [])
    ids = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = [attrs["href"][1:] for tag, attrs in elements.found if tag in {"a", "use"}]
    assert anchors
    assert set(anchors) <= set(ids)


def test_page_names_its_language_figures_and_players(elements):
    assert ("html", {"lang": "en"}) in elements.found
    figures = [attrs for tag, attrs in elements.found if tag == "svg"]
    assert figures
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in figures)
    assert all(attrs["aria-label"] for tag, attrs in elements.found if tag in {"audio", "table"})
    regions = [attrs for tag, attrs in elements.found if attrs.get("class") == "scroll"]
    assert len(regions) == len([tag for tag, _ in elements.found if tag == "table"])


def test_text_from_tables_is_escaped(written):
    text = (written / "index.html").read_text()
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text


def test_examples_are_the_first_prompts_by_id_with_every_model_and_the_prompts_first_seconds(inputs, artifacts):
    prompts = tables.read(tables.PROMPTS, artifacts / "prompts.parquet")
    assert [example.prompt_id for example in inputs.examples] == sorted(prompts["prompt_id"])[:4]
    for example in inputs.examples:
        waveform, rate_hz = decode(example.prompt_flac)
        assert (len(waveform), rate_hz) == (round(0.5 * RATE_HZ), RATE_HZ)
        assert [take.model for take in example.continuations] == list(evaluated(EXPERIMENT))
    judged = {(r["model"], r["continuation_id"], r["metric"]): r["value"] for r in inputs.judged.iter_rows(named=True)}
    first = inputs.examples[0]
    assert [take.score for take in first.continuations] == [
        judged[take.model, content_id(first.prompt_id, 0), "judge_score"] for take in first.continuations
    ]


def test_examples_of_unwritten_prompts_say_what_was_heard(inputs, written):
    heard = [example.prompt_text for example in inputs.examples if example.heard]
    assert heard == ["the boy as heard"]
    assert len(re.findall("<p>the boy as heard <small>.*ASR", (written / "index.html").read_text())) == 1


def test_page_plays_the_very_sound_of_the_tables_and_says_where_nothing_was_spoken(inputs, written, elements):
    played = [attrs["src"] for tag, attrs in elements.found if tag == "audio"]
    sounds = [
        flac
        for example in (*inputs.picked, *inputs.examples)
        for flac in (example.prompt_flac, *(take.flac for take in example.continuations if take.flac))
    ]
    for source, flac in zip(played, sounds, strict=True):
        kind, _, data = source.partition(",")
        sound, (expected, rate_hz) = base64.b64decode(data), decode(flac)
        assert kind == ("data:audio/flac;base64" if len(expected) > 4096 else "data:audio/wav;base64")
        assert sound == flac or "wav" in kind
        found, found_hz = soundfile.read(io.BytesIO(sound), dtype="float32")
        assert (found_hz, found.tolist()) == (rate_hz, expected.tolist())
    assert len(sounds) == 2 * 3 + 4 * (1 + len(SHIFTS)) - 1
    assert (written / "index.html").read_text().count("<p>no audio</p>") == 1


def test_figures_are_well_formed_without_dates_and_leave_their_colours_to_the_page(written):
    svgs = sorted((written / "plots").glob("*.svg"))
    assert {"scores-r1.svg", "training-log-probabilities.svg", "models-unique-ratio.svg"} <= {
        path.name for path in svgs
    }
    for path in svgs:
        text = path.read_text()
        ET.fromstring(text)  # noqa: S314 (our own drawing)
        assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\d", text)
        inside = inline(text, name=path.stem, label="x")
        assert not any(colour in inside for colour in VARIABLES)
        assert "xmlns" not in inside


def test_no_axis_of_percentages_leaves_them(report, inputs, monkeypatch):
    limits = {}

    def drawn(figure, name):
        limits[name] = figure.axes[0].get_xlim()
        return "<svg/>"

    monkeypatch.setattr(plots, "svg_of", drawn)
    whole = tuple(
        m.model_copy(update={"value": 0.9, "ci95": (0.0, 1.0)}) if m.metric == "eos_rate" else m for m in report.metrics
    )
    plots.panels(report.model_copy(update={"metrics": whole}), inputs)
    for metric in ("eos-rate", "unique-ratio", "unique-ratio-per-index", "unit-error-rate", "silence-ratio"):
        low, high = limits[f"models-{metric}"]
        assert 0 <= low < high <= 100, metric
    assert limits["models-eos-rate"] == (0, 100)
    assert limits["difference-continuation-unique-ratio"][0] < 0


def test_figures_do_not_depend_on_the_users_matplotlib_settings(inputs, written, tmp_path):
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 33, "axes.facecolor": "red"}):
        write_report(inputs, ORIGIN, tmp_path)
        assert mpl.rcParams["font.size"] == 33
    assert (tmp_path / "plots" / "scores-r1.svg").read_text() == (written / "plots" / "scores-r1.svg").read_text()


def test_inlining_makes_ids_private_and_keeps_their_references():
    svg = (
        '<?xml version="1.0"?>\n<svg width="4pt" height="3pt" viewBox="0 0 4 3" xmlns="http://x" xmlns:xlink="http://y">'
        '<metadata>http://z</metadata><path id="m1" clip-path="url(#p1)"/><use xlink:href="#m1"/></svg>'
    )
    assert inline(svg, name="n", label="what") == (
        '<svg role="img" aria-label="what" viewBox="0 0 4 3">'
        '<path id="n-m1" clip-path="url(#n-p1)"/><use href="#n-m1"/></svg>'
    )


def test_scores_are_counted_in_steps_of_a_quarter(inputs):
    values = inputs.rounds["r1"].scores["judge_score"].drop_nulls().to_list()
    edges = [1 + i / 4 for i in range(17)]
    oracle = [sum(a <= v < b or (b == 5 == v) for v in values) for a, b in itertools.pairwise(edges)]
    assert score_counts(inputs.rounds["r1"].scores) == oracle


def test_thresholds_are_those_that_held_whatever_the_selector(inputs, written, tmp_path):
    assert "chosen ≥ 3.8" in (written / "plots" / "scores-r2.svg").read_text()  # the counts' and not params.yaml's
    assert "; r2: min_chosen_score 3.8, max_rejected_score 2.2, min_margin" in (written / "report.md").read_text()
    none = {"min_chosen_score": None, "max_rejected_score": None}
    rounds = {
        name: dataclasses.replace(item, counts=item.counts.model_copy(update=none))
        for name, item in inputs.rounds.items()
    }
    write_report(dataclasses.replace(inputs, rounds=rounds), ORIGIN, tmp_path)
    assert "≥" not in (tmp_path / "plots" / "scores-r2.svg").read_text()
    assert "; r2: min_margin" in (tmp_path / "report.md").read_text()


def test_a_diverged_training_log_is_still_shown():
    log = TrainingLog.model_validate_json('{"steps": 1, "best": null, "log": [{"step": 1, "figures": {"loss": NaN}}]}')
    assert training_table({"r1": log})["train_loss"].is_nan().all()


def test_the_curves_of_many_checkpoints_leave_room_for_their_legend(inputs, written, tmp_path):
    many = {f"checkpoint-{number}": inputs.training["r1"] for number in range(14)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(dataclasses.replace(inputs, training=many), ORIGIN, tmp_path)
    few, more = (
        float(re.search(r'<svg[^>]*? height="([0-9.]+)pt"', (root / "plots" / LOGPS).read_text())[1])
        for root in (written, tmp_path)
    )
    assert more > few


def test_a_broken_training_log_is_named(artifacts, tmp_path):
    for name in ("prompts.parquet", "corpus", "samples", "mos", "eval", "scores", "pair_counts"):
        (tmp_path / name).symlink_to(artifacts / name)
    (tmp_path / "training_logs").mkdir()
    for log in (artifacts / "training_logs").iterdir():
        (tmp_path / "training_logs" / log.name).write_text('{"steps": 3}' if log.stem == "r1" else log.read_text())
    with pytest.raises(DamagedError) as raised:
        read_inputs(tmp_path, EXPERIMENT)
    names(raised.value, tmp_path / "training_logs" / "r1.json", "best", "dvc repro")


EXPECTED = [
    "prompts.parquet", "prompt_transcripts.parquet", "corpus/utterances", "mos/r1.parquet",
    "mos/original-prompts.parquet", "mos/original-continuations.parquet", "samples/r1/transcripts.parquet",
    "samples/r1/speech", "samples/ground-truth/recorded.parquet", "eval/r1/judged.parquet",
    "eval/r1/item_scores.parquet", "scores/r1.parquet", "pair_counts/r1.json",
    "training_logs/base.json", "training_logs/sft.json", "training_logs/r1.json",
]  # fmt: skip


@pytest.mark.parametrize("gone", EXPECTED)
def test_an_absent_input_is_named(artifacts, tmp_path, gone):
    shutil.copytree(artifacts, tmp_path, dirs_exist_ok=True)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((DamagedError, tables.TableError)) as raised:
        read_inputs(tmp_path, EXPERIMENT)
    names(raised.value, path, "dvc repro")


def test_pairs_account_closes(inputs):
    sheet = pairs_sheet(inputs)
    assert sheet.headings[:6] == ("round", "split", "prompts", "with pairs", "pairs", "mean margin")
    rows = [[cell.text for cell in row] for row in sheet.rows]
    assert rows[0] == ["r1", "train", "35", "25", "50", "1.75", "4", "6"]
    assert rows[1] == ["r1", "valid", "5", "5", "10", "1.75", "0", "0"]
    assert all(int(row[2]) == int(row[3]) + sum(map(int, row[6:])) for row in rows)


def test_headline_has_the_promised_columns_and_flags(report):
    assert [f"{benchmark} {metric}" for benchmark, metric in headline(report)] == [
        "continuation judge_score", "continuation heldout_judge_score", "continuation grammatical", "sblimp accuracy",
        "storycloze accuracy/topic", "swuggy accuracy", "continuation auto_bleu", "continuation unique_ratio",
        "continuation num_words", "speech dnsmos_ovrl",
    ]  # fmt: skip
    rows = {row[0].text: row for row in headline_sheet(report, "ground-truth").rows}
    assert rows["r2"][1].mark == "flag"
    assert rows["r2"][1].text.endswith("⚑")
    assert rows["base"][1].mark == ""
    assert rows["ground-truth (topline)"][4].text == "–"


def test_numbers_are_written_with_errors_signs_and_significance(report):
    shown = report.metric("base", "continuation", "judge_score").model_copy(
        update={"value": 2.871, "ci95": (2.75, 2.99)}
    )
    assert with_error(shown) == "2.87 ± 0.12"
    delta = Comparison(
        model="r1",
        against="base",
        benchmark="storycloze",
        metric="accuracy/topic",
        delta=-0.0214,
        stderr=0.01,
        ci95=(-0.05, -0.01),
        p=0.04,
        p_corrected=0.2,
        n=9,
        n_missing=0,
    )
    assert change(delta) == "−2.1 n.s. [−5.0, −1.0]"  # one verdict: that of the corrected test
    assert change(delta.model_copy(update={"p_corrected": 0.04})) == "−2.1 [−5.0, −1.0]"
    few = {"stderr": None, "ci95": None, "p": None, "p_corrected": None}
    assert change(delta.model_copy(update=few)) == "−2.1 (too few)"
    same = {"delta": -1e-12, "stderr": 0.0, "ci95": None, "p": 1.0, "p_corrected": 1.0}
    assert change(delta.model_copy(update=same)) == "0.0 (all equal)"
    tiny = {"delta": 1e-5, "ci95": (-2e-4, 4e-4), "p_corrected": 0.6}
    assert change(delta.model_copy(update=tiny)) == "0.0 n.s. (within ±0.1)"
    assert with_error(shown.model_copy(update={"stderr": None, "ci95": None})) == "2.87 (too few)"
    assert change(None) == "–"
    assert heading("continuation", "auto_bleu", arrow="↓") == "auto-BLEU (×100)\N{NO-BREAK SPACE}↓"


def test_marks_say_better_or_worse_by_the_metrics_direction(report):
    sheet = comparison_sheet(report)
    row = next(row for row in sheet.rows if row[0].text == "r2 – base")
    assert row[1].mark == "better"
    moved = [
        c.model_copy(update={"delta": 0.5, "p_corrected": 0.01}) if c.metric in {"auto_bleu", "num_words"} else c
        for c in report.comparisons
    ]
    row = comparison_sheet(report.model_copy(update={"comparisons": tuple(moved)})).rows[0]
    assert [row[sheet.headings.index(h)].mark for h in ("auto-BLEU (×100)\N{NO-BREAK SPACE}↓", "words")] == [
        "worse",
        "moved",
    ]


def test_findings_are_the_comparisons_and_their_meaning(report):
    found = findings_of(report, EXPERIMENT)
    judged = {
        (c.model, c.against): c
        for c in report.comparisons
        if (c.benchmark, c.metric) == ("continuation", "judge_score")
    }
    assert (found.first, found.last, found.gain, found.step) == ("r1", "r2", judged["r2", "base"], judged["r2", "r1"])
    assert found.explained == {
        name: (judged[name, "base"], judged[name, "base"].delta / found.gain.delta) for name in ("sft", "base-low-temp")
    }
    assert (found.first_against_sft, found.last_against_sft) == (judged["r1", "sft"], judged["r2", "sft"])
    assert [item.against_base.benchmark for item in found.likelihood] == ["storycloze"]
    assert found.flagged == {"judge_score": ("r2",), "heldout_judge_score": ("r2",)}
    assert [found.gain.direction, found.first_against_sft.direction, found.diversity.direction] == ["up", "ns", "ns"]


def test_every_finding_is_written_out(report):
    texts = paragraphs_of(report, EXPERIMENT)
    found = findings_of(report, EXPERIMENT)
    gained = percent(found.explained["sft"][1])
    shown = (found.gain, found.heldout_gain, found.first_against_sft, found.last_against_sft, found.step)
    names(" ".join(texts["findings"]), *map(change, shown), gained, "base-low-temp", "sft")
    assert [sentence.startswith("r2 scores above the topline") for sentence in texts["warnings"]] == [True, True]
    names(
        texts["warnings"][0],
        "training judge",
        with_error(report.metric("ground-truth", "continuation", "judge_score")).split()[0],
    )
    names(texts["warnings"][1], "held-out judge")


def test_the_notes_say_whether_the_loss_has_a_reference_and_weights(report):
    last = list(EXPERIMENT.params.rounds)[-1]
    said = {}
    for free in (False, True):
        trainer = EXPERIMENT.checkpoints[last].model_copy(update={"reference_free": free, "margin_weights": free})
        changed = EXPERIMENT.model_copy(update={"checkpoints": {**EXPERIMENT.checkpoints, last: trainer}})
        said[free] = " ".join(paragraphs_of(report, changed)["notes"])
    assert said[False] == " ".join(paragraphs_of(report, EXPERIMENT)["notes"])
    assert "β = 0.1)." in said[False]
    assert "β = 0.1, without a reference model, pairs weighted by their margins)." in said[True]


def test_a_checkpoint_that_training_made_worse_is_the_first_warning(report):
    worse = {"figure": "reward margin on 33 validation pairs", "start": 0.0, "end": -9.25, "worse": True}
    logs = {
        name: TrainingLog.model_validate({"steps": 9, "best": None, "change": change, "log": []})
        for name, change in (("base", None), ("sft", worse | {"worse": False}), ("r2", worse))
    }
    first, *others = paragraphs_of(report, EXPERIMENT, logs)["warnings"]
    names(first, "`r2`", "worse", "-9.25", "33 validation pairs")
    assert not any("validation pairs" in text for text in others)


def test_findings_change_with_the_numbers(report):
    worse = tuple(
        c.model_copy(update={"delta": -0.5, "p_corrected": 0.01})
        if c.metric in {"judge_score", "unique_ratio"} and c.model != "ground-truth"
        else c
        for c in report.comparisons
    )
    changed = report.model_copy(update={"comparisons": worse, "flags": ()})
    found = findings_of(changed, EXPERIMENT)
    assert (found.gain.direction, found.first_against_sft.direction, found.diversity.direction) == ("down",) * 3
    assert (found.explained, found.flagged) == ({}, {})
    text = " ".join(paragraphs_of(changed, EXPERIMENT)["findings"])
    names(
        text,
        "loss",
        "below",
        "less diverse",
        "topline",
        with_interval(report.metric("ground-truth", "continuation", "judge_score")),
    )
    assert paragraphs_of(changed, EXPERIMENT)["warnings"] == []


def test_findings_without_scores_say_so(report):
    bare = report.model_copy(update={"metrics": (), "comparisons": (), "flags": ()})
    unaltered = EXPERIMENT.model_copy(
        update={"corpus": EXPERIMENT.corpus.model_copy(update={"mismatched_fraction": 0.0})}
    )
    texts = paragraphs_of(bare, unaltered)
    gain, ground_truth = texts["findings"]
    names(gain, "not measured", "r2", "base")
    names(ground_truth, "no judge score", "topline")
    assert not any("on purpose" in note for note in texts["notes"])


def test_altered_training_stories_are_stated_with_the_result_and_with_the_notes(written):
    for name in ("report.md", "index.html"):
        text = html.unescape((written / name).read_text())
        assert len(re.findall(r"on purpose: 50\s% of (its|the) training stories", text)) == 2


def test_the_table_of_systems_says_how_each_was_made():
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in systems_sheet(EXPERIMENT.params).rows}
    assert rows["base-low-temp"] == ["baseline", "base", "–", "–", "–", "0.8"]
    assert rows["sft"] == ["baseline", "sft", "base", "pairs/r1", "sft", "1"]
    assert rows["r2"] == ["round", "r2", "r1", "pairs/r2", "dpo-nll", "1"]
    assert rows["ground-truth"] == ["topline", "corpus/utterances", "–", "–", "–", "–"]


def test_published_rows_stand_above_ours_and_ours_are_marked(report):
    sheet = published_sheet(report, EXPERIMENT)
    assert [cell.text for cell in sheet.rows[4]] == [
        "Align-SLM 7B, MLS + curriculum",
        "77.9",
        "62.3",
        "61.1",
        "86.8",
        "3.50",
    ]
    ours = [row for row in sheet.rows if row[0].text.startswith("this run: ")]
    assert len(ours) == len(SHIFTS)
    assert {cell.mark for row in ours for cell in row} == {"ours"}
    assert {cell.mark for row in sheet.rows[:6] for cell in row} == {""}
    assert ours[0][4].text == with_error(report.metric("base", "storycloze", "accuracy/topic"))


def test_markdown_tables_are_rectangular_and_carry_provenance(written):
    text = (written / "report.md").read_text()
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert f"- code: {ORIGIN.git_commit} with uncommitted changes" in text
    assert "- seeds: base 0, sampling 0, training 0, evaluation 0\n" in text
    assert (
        "- thresholds: r1: min_chosen_score 3.2, max_rejected_score 2.2, min_margin 1, max_auto_bleu 0.1; r2: " in text
    )
    assert "- processor: AMD EPYC, 2 cores\n" in text
    assert "published summaries of arXiv 2411.01834" in text


def test_sampled_baselines_then_rounds_then_the_topline_are_evaluated():
    experiment = load_experiment(Path(__file__).parents[1])
    systems, rounds = evaluated(experiment), tuple(experiment.params.rounds)
    assert (systems[0], systems[-1], topline(experiment)) == ("base", "ground-truth", "ground-truth")
    assert systems[-1 - len(rounds) : -1] == rounds
    assert set(systems) == set(experiment.params.systems)


def test_origin_outside_a_repository(tmp_path):
    (tmp_path / "dvc.lock").write_text("")
    found = origin_of(tmp_path, device="cpu", packages=["numpy"])
    assert (found.git_commit, found.dirty) == (None, False)
    assert found.dvc_lock_sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert list(found.packages) == ["numpy"]

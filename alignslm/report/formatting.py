"""Names of metrics and formats of numbers, the same in page, Markdown, cards and commands."""

from collections.abc import Collection
from typing import NamedTuple

from markupsafe import Markup, escape

from alignslm.figures.columns import ACCURACY, CONTINUATION, SPEECH, WORD_ERROR
from alignslm.mos import headline_metric
from alignslm.report.metrics import Comparison, Metric, Report
from alignslm.statistics import ALL_EQUAL, MIN_CLUSTERS, TOO_FEW, Interval

DASH = "–"
PROCEDURE = (
    "Intervals are of 95 %: Student's t over prompts or item pairs, Wilson's for means on a scale with ends. Tests of "
    "differences are paired t tests, for right or wrong answers Bonett and Price's. n.s.: p is not below 0.05 after "
    "Holm's correction for the other metrics of the two systems (for the parts of benchmarks: the other parts). Below "
    f"{MIN_CLUSTERS} prompts or pairs: too few to say."
)
MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


class Style(NamedTuple):
    """Label, factor, decimals and unit of one metric in print."""

    label: str
    factor: float
    decimals: int
    unit: str


STYLES = {
    "judge_score": Style("training judge", 1, 2, "1 to 5"),
    "heldout_judge_score": Style("held-out judge", 1, 2, "1 to 5"),
    "grammatical": Style("grammatical", 100, 1, "%"),
    "ppl": Style("perplexity", 1, 1, ""),
    "log_ppl": Style("log perplexity", 1, 2, "nats"),
    "auto_bleu": Style("auto-BLEU", 100, 2, "×100"),
    "unique_ratio": Style("unique texts", 100, 1, "%"),
    "unique_ratio_per_index": Style("unique texts per index", 100, 1, "%"),
    "eos_rate": Style("EOS rate", 100, 1, "%"),
    "num_words": Style("words", 1, 2, ""),
    "num_units": Style("units", 1, 1, ""),
    "duration_s": Style("duration", 1, 2, "s"),
    "distinct_1": Style("distinct-1", 100, 1, "%"),
    "distinct_2": Style("distinct-2", 100, 1, "%"),
    "silence_ratio": Style("silence", 100, 1, "%"),
    "unit_error_rate": Style("unit error", 100, 1, "%"),
}
SPEECH_STYLES = {
    WORD_ERROR: Style("word error", 100, 1, "%"),
    "dnsmos_ovrl": Style("predicted MOS", 1, 2, "1 to 5"),
    "dnsmos_sig": Style("predicted MOS of the voice", 1, 2, "1 to 5"),
    "dnsmos_bak": Style("predicted MOS of the background", 1, 2, "1 to 5"),
    "dnsmos_p808": Style("predicted MOS, P.808", 1, 2, "1 to 5"),
    "utmos": Style("predicted MOS", 1, 2, "1 to 5"),
}
CONVENTIONS = {
    "conditional": "of the ending given what comes before",
    "joint": "of the whole item",
    "mean": "per unit",
    "sum": "summed over units",
    "eos": "end of sequence counted",
}
HEADLINE = ("judge_score", "heldout_judge_score", "grammatical", "auto_bleu", "unique_ratio", "num_words")
HEADLINE_BENCHMARKS_AFTER = "grammatical"
TOPIC = f"{ACCURACY}/topic"


def style(benchmark: str, metric: str) -> Style:
    """Return the format of a metric; accuracies are in percent."""
    if benchmark == CONTINUATION:
        return STYLES.get(metric, Style(metric.replace("_", " "), 1, 3, ""))
    if benchmark == SPEECH:
        return SPEECH_STYLES.get(metric, Style(metric.replace("_", " "), 1, 2, "1 to 5"))
    figure, _, convention = metric.partition("@")
    part = figure.removeprefix(ACCURACY).removeprefix("/")
    behind = f" ({convention_words(convention)})" if convention else ""
    return Style(f"{benchmark}, {part}{behind}" if part else f"{benchmark}{behind}", 100, 1, "%")


def convention_words(convention: str) -> str:
    """Return a likelihood convention in words, such as `joint-sum-eos`; see `benchmarks.conventions`."""
    return ", ".join(CONVENTIONS[word] for word in convention.split("-"))


def headline(report: Report) -> list[tuple[str, str]]:
    """List (benchmark, metric) of the headline table that some system has.

    A benchmark is represented by its `topic` items, audio by one predicted MOS.
    """
    found = {(m.benchmark, m.metric) for m in report.metrics}
    columns: list[tuple[str, str]] = []
    for metric in HEADLINE:
        columns.append((CONTINUATION, metric))
        if metric == HEADLINE_BENCHMARKS_AFTER:
            columns += benchmark_headlines(found)
    columns += speech_headline(found)
    return [column for column in columns if column in found]


def benchmark_headlines(found: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the figure that stands for each benchmark among (benchmark, metric): of its topic items, if it has any."""
    names = sorted({benchmark for benchmark, _ in found} - {CONTINUATION, SPEECH})
    return [(name, TOPIC if (name, TOPIC) in found else ACCURACY) for name in names]


def speech_headline(found: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the predicted MOS that stands for the sound among (benchmark, metric), if there is one."""
    rated = {metric for benchmark, metric in found if benchmark == SPEECH} - {WORD_ERROR}
    return [(SPEECH, headline_metric(rated))] if rated else []


def number(value: float | None, how: Style, *, signed: bool = False) -> str:
    """Return a number with a true minus sign; a dash for None. A value rounded to zero has no sign."""
    if value is None:
        return DASH
    text = f"{value * how.factor:{'+' if signed else ''}.{how.decimals}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")


def interval(ends: Interval | None, how: Style, *, signed: bool = False, absent: str = TOO_FEW) -> str:
    """Return [low, high], or instead `within ±0.01` if both would be printed as zero."""
    if ends is None:
        return absent
    shown = [number(end, how, signed=signed) for end in ends]
    within = number(10**-how.decimals / how.factor, how)
    return f"[{', '.join(shown)}]" if any(float(end.replace(MINUS, "-")) for end in shown) else f"within ±{within}"


def own_interval(found: Metric | Comparison, *, signed: bool = False) -> str:
    """Return the interval of a metric or difference, why it has none, or a dash if it was not measured."""
    missing = found.value is None if isinstance(found, Metric) else found.delta is None
    absent = DASH if missing else TOO_FEW if found.stderr is None else ALL_EQUAL
    return interval(found.ci95, style(found.benchmark, found.metric), signed=signed, absent=absent)


def with_error(metric: Metric | None) -> str:
    """Return `2.87 ± 0.12`: ± is half the width of the 95 % interval."""
    return " ".join(filter(None, error_parts(metric)))


def error_parts(metric: Metric | None) -> tuple[str, str]:
    """Return a mean and its error separately; a dash and an empty text if it was not measured."""
    if metric is None or metric.value is None:
        return DASH, ""
    how = style(metric.benchmark, metric.metric)
    if metric.ci95 is None:
        return number(metric.value, how), f"({own_interval(metric)})"
    return number(metric.value, how), f"± {number((metric.ci95[1] - metric.ci95[0]) / 2, how)}"


def change(comparison: Comparison | None) -> str:
    """Return `+0.83 [+0.68, +0.97]`, with n.s. if tested and not significant; `+0.5 (too few)`."""
    text, detail = change_parts(comparison)
    return f"{text} {detail if detail.startswith('[') else f'({detail})'}" if detail else text


def change_parts(comparison: Comparison | None) -> tuple[str, str]:
    """Return a difference and its interval separately; a dash and an empty text if there is no difference."""
    if comparison is None or comparison.delta is None:
        return DASH, ""
    how = style(comparison.benchmark, comparison.metric)
    text = number(comparison.delta, how, signed=True)
    shown = f"{text} n.s." if comparison.direction == "ns" and comparison.ci95 else text
    return shown, own_interval(comparison, signed=True)


def with_unit(how: Style) -> str:
    """Return `duration (s)`."""
    return f"{how.label} ({how.unit})" if how.unit else how.label


def difference_unit(how: Style) -> str:
    """Return the unit of a difference in parentheses: percentage points for percentages."""
    unit = {"%": "percentage points", "1 to 5": "points of the scale"}.get(how.unit, how.unit)
    return f" ({unit})" if unit else ""


def heading(benchmark: str, metric: str, *, arrow: str) -> str:
    """Return a column heading such as `perplexity ↓`; unit and arrow stay on one line."""
    how = style(benchmark, metric)
    behind = NO_BREAK.join(filter(None, (f"({how.unit})" if how.unit else "", arrow))).replace(" ", NO_BREAK)
    return f"{how.label} {behind}".strip()


def arrow(report: Report, benchmark: str, metric: str) -> str:
    """Return ↑ if higher is better, ↓ if lower is, an empty text if neither is."""
    found = next(m for m in report.metrics if (m.benchmark, m.metric) == (benchmark, metric))
    return {True: "↑", False: "↓", None: ""}[found.higher_is_better]


def value(metric: Metric) -> str:
    """Return a metric's mean."""
    return number(metric.value, style(metric.benchmark, metric.metric))


def with_interval(metric: Metric) -> str:
    """Return `2.87 [2.75, 2.99]`."""
    return f"{value(metric)} {own_interval(metric)}"


def label(of: Metric | Comparison) -> str:
    """Return the name of a metric."""
    return style(of.benchmark, of.metric).label


def percent(ratio: float) -> str:
    """Return a ratio as a whole percentage."""
    return f"{100 * ratio:.0f}{NO_BREAK}%".replace("-", MINUS)


def score(value: float | None) -> str:
    """Return a judge's score; a dash for None."""
    return DASH if value is None else f"{value:.2f}"


def probability(p: float | None) -> str:
    """Return three decimals, and <0.001 below that: 0.000 is not a probability."""
    return DASH if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def with_code(note: str) -> Markup:
    """Return text as HTML: `names` as code elements, everything escaped."""
    parts = [str(escape(part)) for part in note.split("`")]
    inner = (f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
    return Markup("".join(inner))  # noqa: S704 (escaped above)


FILTERS = {f.__name__: f for f in (change, value, with_interval, label, percent, score, with_code)}

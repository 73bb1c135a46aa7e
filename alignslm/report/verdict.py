"""The verdict in words, made from the numbers alone: what rose, what explains it, and what it cost."""

from collections.abc import Iterator

from alignslm.report.columns import BASE, CONTINUATION, FINETUNED
from alignslm.report.inputs import Setting
from alignslm.report.metrics import JUDGES, Comparison, Report
from alignslm.report.wording import MINUS, NO_BREAK, TOPIC, change, headline, interval, number, style

COOLED = "base-low-temp"


def verdict(report: Report, setting: Setting) -> list[str]:
    """Return sentences on the last round: gain, its explanations (controls), likelihood, diversity, the ceiling."""
    last = setting.last_round
    parts = (
        _gain(report, last),
        _explained(report, last),
        _preference(report, setting),
        _likelihood(report, setting),
        _last_round(report, setting),
        _diversity(report, last),
        _ceiling(report, setting),
        _headroom(setting),
    )
    return [sentence for part in parts for sentence in part]


def _judged(report: Report, model: str, against: str, metric: str = "judge") -> Comparison | None:
    return report.comparison(model, against, CONTINUATION, metric)


def _gain(report: Report, last: str) -> Iterator[str]:
    gain, start = _judged(report, last, BASE), report.metric(BASE, CONTINUATION, "judge")
    end, held_out = report.metric(last, CONTINUATION, "judge"), _judged(report, last, BASE, "heldout_judge")
    if gain is None or start is None or end is None:
        yield f"No judged score was measured for both {last} and {BASE}, so nothing is said about a gain."
        return
    how = style(CONTINUATION, "judge")
    yield (
        f"On {gain.n} held-out prompts the judge that made the training pairs gives {last} {number(end.value, how)} "
        f"of 5 and {BASE} {number(start.value, how)}: {change(gain)}, {_told(gain)}."
    )
    if held_out is not None:
        yield f"A judge that took no part in training sees {change(held_out)}, {_told(held_out)}."


def _told(comparison: Comparison) -> str:
    if not comparison.significant or comparison.delta is None:
        return "not distinguishable from no change"
    return "a gain" if comparison.delta > 0 else "a loss"


def _explained(report: Report, last: str) -> Iterator[str]:
    gain = _judged(report, last, BASE)
    if gain is None or gain.delta is None or not gain.significant or gain.delta < 0:
        return
    if (tuned := _judged(report, FINETUNED, BASE)) and tuned.delta is not None:
        yield (
            f"Fine-tuning on the chosen samples alone ({FINETUNED}) reaches {change(tuned)}, "
            f"{_share(tuned.delta, gain.delta)} of that gain."
        )
    if (cooled := _judged(report, COOLED, BASE)) and cooled.delta is not None:
        yield (
            f"Sampling the unchanged base model at a lower temperature ({COOLED}) gives {change(cooled)}, "
            f"{_share(cooled.delta, gain.delta)} of it: so much may be mere sharpening."
        )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f}{NO_BREAK}%".replace("-", MINUS)


def _preference(report: Report, setting: Setting) -> Iterator[str]:
    """Compare the first round with fine-tuning on the same pairs; a later round has had more of everything."""
    first, last = next(iter(setting.rounds)), setting.last_round
    extra = _judged(report, first, FINETUNED)
    if extra is not None and extra.delta is not None:
        yield f"On the same pairs {first} against {FINETUNED}: {change(extra)}, {_meaning(extra)}."
    later = _judged(report, last, FINETUNED) if last != first else None
    if later is not None:
        yield f"{last} against {FINETUNED}: {change(later)}, but {last} drew and trained once more."


def _meaning(extra: Comparison) -> str:
    if not extra.significant or extra.delta is None:
        return "so no judged gain of preference training over plain fine-tuning is shown"
    if extra.delta > 0:
        return "so preference training adds to what plain fine-tuning gives"
    return "so preference training ends below plain fine-tuning"


def _likelihood(report: Report, setting: Setting) -> Iterator[str]:
    first, last = next(iter(setting.rounds)), setting.last_round
    for benchmark, metric in headline(report):
        against_base = report.comparison(last, BASE, benchmark, metric)
        if benchmark == CONTINUATION or metric != TOPIC or against_base is None:
            continue
        against_tuned = report.comparison(first, FINETUNED, benchmark, metric)
        behind = f" ({first} against {FINETUNED}: {change(against_tuned)})" if against_tuned else ""
        yield (
            f"In likelihood, accuracy on {style(benchmark, metric).label} moves by {change(against_base)} percentage "
            f"points from {BASE} to {last}"
            f"{behind}; its wrong endings resemble the rejected samples, so read the harder subtypes beside it."
        )


def _last_round(report: Report, setting: Setting) -> Iterator[str]:
    last = setting.last_round
    previous = setting.previous[last]
    step = _judged(report, last, previous)
    if previous == BASE or step is None:
        return
    held_out = _judged(report, last, previous, "heldout_judge")
    beside = f" (held-out judge {change(held_out)})" if held_out else ""
    yield f"The last round adds {change(step)} to {previous}{beside}."


def _diversity(report: Report, last: str) -> Iterator[str]:
    moved = _judged(report, last, BASE, "distinct")
    if moved is None or moved.delta is None:
        return
    if not moved.significant:
        meaning = "no narrowing of the samples is shown"
    else:
        meaning = "the samples have become narrower" if moved.delta < 0 else "the samples have become more varied"
    yield f"The share of distinct texts changes by {change(moved)} percentage points: {meaning}."


def _ceiling(report: Report, setting: Setting) -> Iterator[str]:
    measured = [judge for judge in JUDGES if _ceiling_of(report, setting, judge)]
    if not measured:
        yield "The true continuations have no judged score, so nobody can tell whether a model outbids them."
    elif not report.flags:
        told = " and ".join(f"{_ceiling_of(report, setting, judge)} ({_name(judge)})" for judge in measured)
        yield f"No model lies above the true continuations' own score of {told}."


def _headroom(setting: Setting) -> Iterator[str]:
    if setting.drift:
        yield (
            f"The room for a gain was made on purpose: {100 * setting.drift:.0f} % of the training stories continue "
            "with another story's ending."
        )


def warnings(report: Report, setting: Setting) -> list[str]:
    """Return a sentence a judge on the models that lie above the true continuations' own interval."""
    above = {judge: [flag.model for flag in report.flags if flag.metric == judge] for judge in JUDGES}
    return [
        f"{', '.join(models)} {'scores' if len(models) == 1 else 'score'} above the true continuations' own "
        f"{_ceiling_of(report, setting, judge)} on the {_name(judge)}: beyond that a higher score shows a "
        "pleased judge, not better speech."
        for judge, models in above.items()
        if models
    ]


def _ceiling_of(report: Report, setting: Setting, judge: str) -> str:
    """Write the ceiling and its interval; nothing where it has none."""
    ceiling, how = report.metric(setting.ceiling_model, CONTINUATION, judge), style(CONTINUATION, judge)
    if ceiling is None or ceiling.ci95 is None:
        return ""
    return f"{number(ceiling.value, how)} {interval(ceiling.ci95, how)}"


def _name(judge: str) -> str:
    return style(CONTINUATION, judge).label

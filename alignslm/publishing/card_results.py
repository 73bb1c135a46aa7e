"""The results of a model card in words: tables, what to read beside them, and what alignment cost."""

from collections.abc import Iterator

from alignslm.config.experiment import Experiment
from alignslm.publishing.cards import Published, markdown_table
from alignslm.publishing.results import counted, differences_table, results_table
from alignslm.report.columns import BASE, CONTINUATION, FINETUNED
from alignslm.report.metrics import Report
from alignslm.report.wording import change, heading, headline

DEFINITIONS = {
    "grammatical": "Grammatical: share of texts that the story grammar can produce word for word after that prompt; a "
    "program checks it, no model.",
    "auto_bleu": "Auto-BLEU: share of a continuation's repeated bigrams.",
    "distinct": "Distinct: share of different texts among all of a system's continuations; it falls as samples narrow.",
    "dnsmos_ovrl": "Predicted MOS: what DNSMOS believes that listeners would say of {n} clips; nobody listened.",
}


def results_told(published: Published, report: Report) -> dict[str, object]:
    """Return what the model card says of results, ready to print."""
    experiment, name = published.experiment, published.round
    results, differences = results_table(report, experiment, name), differences_table(report, experiment, name)
    evaluation = experiment.params.evaluation
    counts = "; ".join(
        f"{n} {what}{f' ({missing} not measured)' if missing else ''}" for what, n, missing in counted(report, name)
    )
    return {
        "main_result": _main_result(published, report),
        "asked": f"On prompts of the `{evaluation.split}` split, which took no part in training, {evaluation.draws} "
        f"draws each, and on benchmarks of likelihood ({counts}).",
        "results": markdown_table(results.headings, results.rows),
        "differences": markdown_table(differences.headings, differences.rows),
        "reading": list(_reading(published, report)),
    }


def _main_result(published: Published, report: Report) -> str:
    """Return the judged change against base and against fine-tuning, of the judge that took no part."""
    params = published.experiment.params
    parts = []
    for against, words in ((BASE, "the base model"), (FINETUNED, "fine-tuning on the chosen samples alone")):
        found = report.comparison(published.round, against, CONTINUATION, "heldout_judge")
        if found is not None and found.delta is not None:
            parts.append(f"{change(found)} against {words}")
    if not parts:
        return "see Results"
    return f"score of the held-out judge `{params.heldout_judge}` (1 to 5): {'; '.join(parts)}"


def _reading(published: Published, report: Report) -> Iterator[str]:
    experiment = published.experiment
    bootstrap = experiment.params.evaluation.bootstrap
    yield (
        f"Intervals are percentile bootstraps ({bootstrap.resamples} resamples) over prompts, or over item pairs of a "
        "benchmark, for these trained weights: another training seed can move a number by more. Differences are "
        "paired; no correction is made for looking at many of them."
    )
    systems = experiment.params.systems
    if FINETUNED in systems:
        yield (
            "`sft` was fine-tuned on the chosen samples of the first round alone: what it also reaches is not owed to "
            "preferences."
        )
    if "ntp" in systems:
        yield "`ntp` had more next-unit training on the same speech."
    for system, item in systems.items():
        if item.checkpoint is None:
            yield (
                f"`{system}` are the prompts' true continuations through the same vocoder and recogniser: the ceiling "
                "of the judges."
            )
        elif item.temperature_scale != 1.0:
            yield (
                f"`{system}` is checkpoint `{item.checkpoint}` sampled at {item.temperature_scale:g} times the "
                "temperature: a gain that it shows too may be mere sharpening."
            )
    yield from _benchmarks(experiment)
    yield from _definitions(published, report)
    yield from _costs(published, report)
    for flag in report.flags:
        if flag.model == published.round:
            yield (
                f"⚠ Its {flag.metric} score ({flag.value:.2f}) lies above the true continuations' interval: it pleases "
                "that judge more than the truth does."
            )


def _benchmarks(experiment: Experiment) -> Iterator[str]:
    """Say which benchmark a short name stands for, and that toys are not their namesakes."""
    named = ", ".join(f"`{name}` is `{choice}`" for name, choice in experiment.params.benchmarks.items())
    toys = any(config.kind.startswith("toy-") for config in experiment.benchmarks.values())
    warning = (
        ": small tests made of the same story world, not the public benchmarks of those names. No figure here may be "
        "compared with published ones"
        if toys
        else ""
    )
    yield f"Benchmarks: {named}{warning}."


def _definitions(published: Published, report: Report) -> Iterator[str]:
    for column in headline(report):
        metric = report.metric(published.round, *column)
        if metric is not None and metric.metric in DEFINITIONS:
            yield DEFINITIONS[metric.metric].format(n=metric.n)


def _costs(published: Published, report: Report) -> Iterator[str]:
    """Say in which headline metrics the round is worse than the base model beyond chance: what alignment cost."""
    worse = []
    for column in headline(report):
        found = report.comparison(published.round, BASE, *column)
        metric = report.metric(published.round, *column)
        if found is None or found.delta is None or metric is None or not found.significant:
            continue
        if metric.higher_is_better is not None and (found.delta > 0) != metric.higher_is_better:
            worse.append(f"{heading(*column, arrow='').strip()} {change(found)}")
    if worse:
        yield f"**What it cost**, against the base model: {'; '.join(worse)}."

"""The report's numbers of one round: as the Hub's model-index, and as the facts of its card."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult

from alignslm.config.experiment import Experiment
from alignslm.figures.columns import ACCURACY, BASE, CONTINUATION, FINETUNED, SPEECH
from alignslm.integrity import read_json
from alignslm.publishing import PublishError
from alignslm.report.formatting import headline, style, with_unit
from alignslm.report.metrics import Metric, Report
from alignslm.report.systems import topline
from alignslm.report.tabulate import comparison_sheet, headline_sheet, mark_of, transposed

SAME_AS_PPL = "log_ppl"  # the logarithm of a metric that is listed


def read_report(path: Path, experiment: Experiment, name: str) -> Report:
    """Return the report without the rounds that did not lead to this one.

    Their scores must not change this round's repository. DamagedError if there is no report.
    """
    report = read_json(path, Report)
    others = set(experiment.params.rounds) - set(curriculum(experiment, name))
    kept = Report(
        metrics=tuple(metric for metric in report.metrics if metric.model not in others),
        comparisons=tuple(item for item in report.comparisons if not {item.model, item.against} & others),
        flags=tuple(flag for flag in report.flags if flag.model not in others),
    )
    if not any(metric.model == name for metric in kept.metrics):
        raise PublishError(f"{path} has no metrics of {name}. Run `dvc repro report`.")
    return kept


def curriculum(experiment: Experiment, name: str) -> list[str]:
    """Return the rounds that led to a round in order, including itself."""
    aligned, chain = experiment.params.aligned, [name]
    while (prev := aligned[chain[0]].init_from) in aligned:
        chain.insert(0, prev)
    return chain


def eval_results(report: Report, experiment: Experiment, name: str) -> list[EvalResult]:
    """Return a round's metrics for the model-index, scaled as in print; interval, error and counts are arguments."""
    return [_result(metric, experiment) for metric in report.metrics if metric.model == name and _is_shown(metric)]


def _is_shown(metric: Metric) -> bool:
    return metric.value is not None and metric.metric != SAME_AS_PPL


def _result(metric: Metric, experiment: Experiment) -> EvalResult:
    how = style(metric.benchmark, metric.metric)
    task, dataset, title = _place(metric, experiment)
    ends = None if metric.ci95 is None else [_scaled(end, how.factor) for end in metric.ci95]
    return EvalResult(
        task_type="audio-to-audio",
        task_name=task,
        dataset_type=dataset,
        dataset_name=title,
        dataset_split=experiment.params.evaluation.split if metric.benchmark in {CONTINUATION, SPEECH} else "test",
        metric_type=metric.metric.replace("/", "-"),
        metric_name=with_unit(how),
        metric_value=_scaled(metric.value, how.factor),
        metric_args={
            "ci95": ends, "stderr": _scaled(metric.stderr, how.factor), "n": metric.n, "n_missing": metric.n_missing
        },
    )  # fmt: skip


def _place(metric: Metric, experiment: Experiment) -> tuple[str, str, str]:
    """Return the task, the dataset's id, and its title."""
    if metric.benchmark in {CONTINUATION, SPEECH}:
        corpus, split = experiment.params.corpus, experiment.params.evaluation.split
        return "Speech continuation", f"{corpus}-prompts", f"{corpus}, prompts of the {split} split"
    choice = experiment.params.benchmarks[metric.benchmark]
    return "Likelihood of speech", choice, choice


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 4)


def result_facts(report: Report, experiment: Experiment, name: str) -> dict[str, object]:
    """Return the facts of the model card's results."""
    columns = headline(report)
    own = [metric for column in columns if (metric := report.metric(name, *column))]
    against_base = [found for column in columns if (found := report.comparison(name, BASE, *column))]
    main = (report.comparison(name, other, CONTINUATION, "heldout_judge_score") for other in (BASE, FINETUNED))
    order = sorted(systems_of(report), key=lambda system: (system != name, system == topline(experiment)))
    differences = report.model_copy(update={"comparisons": tuple(c for c in report.comparisons if c.model == name)})
    return {
        "report": report,
        "main_results": [found for found in main if found is not None and found.delta is not None],
        "counted": list(_counted(report, name)),
        "results": transposed(headline_sheet(report, topline(experiment), models=order)),
        "differences": transposed(comparison_sheet(differences)),
        "headline": own,
        "worse": [found for found in against_base if mark_of(report, found) == "worse"],
    }


def systems_of(report: Report) -> list[str]:
    """Return the systems in a report without original recordings."""
    return list(dict.fromkeys(metric.model for metric in report.metrics if metric.benchmark != SPEECH))


def _counted(report: Report, name: str) -> Iterator[Metric]:
    """Yield the metrics with the counts of a round: judged continuations, then each benchmark's item pairs."""
    for metric in report.metrics:
        first = {CONTINUATION: "judge_score", SPEECH: None}.get(metric.benchmark, ACCURACY)
        if metric.model == name and metric.metric == first:
            yield metric

"""The headline metrics of a finished experiment, row by row, read from DVC's cache at its commit."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.experiment import BASE, Experiment
from alignslm.figures.columns import ACCURACY, CONTINUATION, SPEECH, WORD_ERROR, EvalTables, MetricColumn, columns_of
from alignslm.integrity import lock_entries
from alignslm.mos import HEADLINE_MOS
from alignslm.report.evaluated import Key, pair, read_columns
from alignslm.report.formatting import TOPIC
from alignslm.report.inputs import read_word_errors
from alignslm.report.summary import NAMES, QUESTIONS, benchmark_of
from alignslm.report.systems import last_round, topline
from alignslm.storage import atomic_write, temporary_folder
from alignslm.sweep import SweepError
from alignslm.sweep.folder import Finished

HEADLINE = tuple(name for name in NAMES if name != "gain_ci")  # as reports/summary.json names them
KEYS: dict[str, Key] = {  # gains are over base; benchmarks are found by their question
    "score": (CONTINUATION, "judge_score"),
    "gain": (CONTINUATION, "judge_score"),
    "heldout_gain": (CONTINUATION, "heldout_judge_score"),
    "pred_mos": (SPEECH, HEADLINE_MOS),
    "unique": (CONTINUATION, "unique_ratio"),
    "wer": (SPEECH, WORD_ERROR),
}
JUDGES = {"score": "judge", "gain": "judge", "heldout_gain": "heldout_judge"}  # the judges of these scores


class Measured(NamedTuple):
    """The columns of one run by headline name, and which judges gave the scores (hashes, by name of the metric)."""

    columns: dict[str, MetricColumn]
    judges: dict[str, str]


def measure(root: Path, experiment: Experiment, made: Finished) -> Measured:
    """Return an experiment's values in the table. Raises SweepError if an artifact is in no cache."""
    with temporary_folder() as folder:
        place = Path(folder)
        for path in ["dvc.lock", *_files(experiment)]:
            _fetch(root, made, path, place / path)
        columns = columns_in(place / "artifacts", experiment)
        judges = {name: getattr(experiment.params, key) for name, key in JUDGES.items()}
        locked = lock_entries(place / "dvc.lock")
        return Measured(columns, {name: locked[f"judge@{judge}"]["outs"][0]["md5"] for name, judge in judges.items()})


def _files(experiment: Experiment) -> Iterator[str]:
    """Yield the artifacts that are read."""
    made = Artifacts()
    truth = topline(experiment)
    for system in {BASE, last_round(experiment), truth} & {*experiment.params.systems}:
        yield from map(str, (made.judged(system), made.item_scores(system), made.sample(system).transcripts))
    yield str(made.mos_of(last_round(experiment)))
    if truth in experiment.params.systems:
        yield from map(str, (made.prompts, made.sample(truth).recorded))


def _fetch(root: Path, made: Finished, path: str, target: Path) -> None:
    files = DVCFileSystem(url=str(root.resolve()), rev=made.commit)
    try:
        with atomic_write(target) as partial:
            files.get_file(path, str(partial))
    except (DvcException, FileNotFoundError) as error:
        raise SweepError(
            f"{path} of {made.name} is not in DVC's cache. Run `dvc exp remove {made.name}` and the sweep again."
        ) from error


def columns_in(artifacts: Path, experiment: Experiment) -> dict[str, MetricColumn]:
    """Return the columns of the headline metrics that an artifacts folder has, in their order."""
    result, truth = last_round(experiment), topline(experiment)
    own, base = read_columns(artifacts, result), read_columns(artifacts, BASE)
    keys = KEYS | dict(_benchmark_keys(own, experiment))
    found = {name: own[key] for name, key in keys.items() if key in own and not name.endswith(("gain", "wer"))}
    for name in ("gain", "heldout_gain"):
        both = pair(own[KEYS[name]], base[KEYS[name]])
        found[name] = MetricColumn(*KEYS[name], both.left - both.right, both.ids, higher_is_better=True)
    if truth in experiment.params.systems and (errors := _word_errors(Artifacts(artifacts), experiment, truth)):
        found["wer"] = errors
    return {name: found[name] for name in HEADLINE if name in found}


def _benchmark_keys(own: Collection[Key], experiment: Experiment) -> Iterator[tuple[str, Key]]:
    for question in QUESTIONS:
        name = benchmark_of(question, experiment, {benchmark for benchmark, _ in own})
        yield from ((question, (name, metric)) for metric in (ACCURACY, TOPIC) if name and (name, metric) in own)


def _word_errors(made: Artifacts, experiment: Experiment, truth: str) -> MetricColumn | None:
    """Return the topline's word errors; None if no recording has a text to compare with."""
    judged = tables.read(tables.CONTINUATION_METRICS, made.judged(truth))
    items = tables.read(tables.ITEM_SCORES, made.item_scores(truth))
    counted = read_word_errors(made, experiment, judged)
    return columns_of(EvalTables(judged, items, {}, word_errors=counted), truth).get(KEYS["wer"])

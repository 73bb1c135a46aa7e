"""From an experiment's artifacts to its repositories: build the bundles, then push them."""

import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import Experiment
from alignslm.config.publishing import HubPublishing
from alignslm.integrity import require_intact
from alignslm.locks import WORK
from alignslm.publishing import PublishError, PushRecord, Receipt
from alignslm.publishing.cards import CardContext, dataset_card, dataset_title, model_card, model_title
from alignslm.publishing.dataset import subsets_of
from alignslm.publishing.hub import Target, push, require_token, with_manifest
from alignslm.publishing.lineage import PARAMETERS, lineage_of, parameter_files
from alignslm.publishing.model import Bundle, model_files
from alignslm.publishing.pairs import read_sources
from alignslm.publishing.results import read_report
from alignslm.storage import copy_file, reraise_disk_errors, write_bytes

CARD = "README.md"
Kind = Literal["model", "dataset"]


class Upload(NamedTuple):
    """A bundle and its destination."""

    bundle: Bundle
    target: Target


def publish(experiment: Experiment, name: str, root: Path) -> Receipt:
    """Push a round's model and pairs as the publish config says, and return the receipt.

    The token is checked before anything is built. Artifacts are only read. Raises PublishError.
    """
    require_token()
    work = root / WORK / f"publish-{name}"
    packages = packages_of(experiment, name, root, work)
    pushed: dict[Kind, PushRecord] = {kind: push(item.bundle, item.target) for kind, item in packages.items()}
    shutil.rmtree(work, ignore_errors=True)
    return Receipt(round=name, status="pushed", reason=None, pushed=pushed)


def packages_of(experiment: Experiment, name: str, root: Path, work: Path) -> dict[Kind, Upload]:
    """Build everything that a round publishes; only parquet files are written, to `work`."""
    published = published_of(experiment, name, root)
    shutil.rmtree(work, ignore_errors=True)
    with reraise_disk_errors(work):
        work.mkdir(parents=True)
    packages: dict[Kind, Upload] = {}
    if published.model_repo:
        packages["model"] = _packed(published, "model", _model(published, root), model_title(published))
    if published.dataset_repo:
        packages["dataset"] = _packed(published, "dataset", _dataset(published, root, work), dataset_title(published))
    return packages


def published_of(experiment: Experiment, name: str, root: Path) -> CardContext:
    """Return a round's repositories and lineage. PublishError if it is not a round, or publishing is off."""
    config, aligned = experiment.publish, experiment.params.aligned
    if not isinstance(config, HubPublishing):
        raise PublishError(
            "publishing is off (`publish: none` in params.yaml); choose a config in experiments/publish."
        )
    if name not in aligned:
        raise PublishError(f"{name!r} is not a checkpoint trained on judged preferences, as are {', '.join(aligned)}.")
    others = set(experiment.params.rounds) - {name}
    wanted = [
        f"artifacts/checkpoints/{name}",
        *(f"artifacts/eval/{system}" for system in experiment.params.systems if system not in others),
    ]
    for path in wanted:
        require_intact(root / path)
    repos = {key: pattern.replace("{round}", name) for key, pattern in config.repositories()}
    return CardContext(
        experiment=experiment,
        config=config,
        round=name,
        lineage=lineage_of(root, wanted),
        artifacts=Artifacts(root / "artifacts"),
        model_repo=repos.get("model.repo"),
        dataset_repo=repos.get("dataset.repo"),
    )


def _packed(published: CardContext, kind: Kind, bundle: Bundle, title: str) -> Upload:
    experiment = published.lineage.experiment_id
    repo = published.model_repo if kind == "model" else published.dataset_repo
    target = Target(
        repo=str(repo),
        repo_type=kind,
        private=published.config.private,
        tag=published.tag,
        message=f"{title} (experiment {experiment})",
    )
    return Upload(with_manifest(bundle, kind=kind, round=published.round, experiment=experiment), target)


def _model(published: CardContext, root: Path) -> Bundle:
    experiment, name = published.experiment, published.round
    assert published.config.model is not None  # noqa: S101 (asked before)
    report = read_report(root / "reports" / "metrics.json", experiment, name)
    return {
        **model_files(experiment, name, published.config.model, published.artifacts),
        **_origin(published, root),
        f"{PARAMETERS}/metrics.json": report.to_json().encode(),
        CARD: model_card(published, report),
    }


def _dataset(published: CardContext, root: Path, work: Path) -> Bundle:
    experiment, name = published.experiment, published.round
    config = published.config.dataset
    assert config is not None  # noqa: S101 (asked before)
    pairs = experiment.params.aligned[name].pairs
    sources = read_sources(pairs, config, published.artifacts, work)
    subsets = subsets_of(
        config,
        sources,
        work,
        evaluated=published.artifacts.evaluations / name,
        evaluated_on=experiment.params.evaluation.split,
    )
    card = dataset_card(published, subsets, sample_rate_hz=sources.sample_rate_hz)
    files = {file: path for subset in subsets for file, path in subset.files.items()}
    return {**files, **_origin(published, root), CARD: card}


def _origin(published: CardContext, root: Path) -> Bundle:
    return {
        **parameter_files(published.experiment, root),
        f"{PARAMETERS}/dvc.lock": published.lineage.lock,
    }


def write_preview(packages: dict[Kind, Upload], folder: Path) -> None:
    """Write what would be pushed to folder/model and folder/dataset. PublishError if one of them exists."""
    for place in (folder / kind for kind in packages):
        if place.exists():
            raise PublishError(f"{place} already exists; choose another folder, or remove it.")
    for kind, package in packages.items():
        place = folder / kind
        for name, file in sorted(package.bundle.items()):
            write_bytes(place / name, file) if isinstance(file, bytes) else copy_file(file, place / name)

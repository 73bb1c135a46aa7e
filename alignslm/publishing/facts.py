"""What both cards say of an experiment in words: units, feedback, lineage, limits."""

import json
from collections.abc import Iterator
from pathlib import Path

from alignslm.artifacts import Artifacts
from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.experiment import Experiment
from alignslm.config.feedback import ThresholdSelector
from alignslm.config.speech import StoryWorld
from alignslm.pairs.account import PairAccount, SplitAccount
from alignslm.provenance import UnitContract
from alignslm.publishing.lineage import Lineage
from alignslm.publishing.sources import base_identity, judge_of

CUTS = {"sentence": "their first sentence", "word": "the words that end in time", "raw": "cut at that time"}
CHOICES = ("corpus", "encoder", "vocoder", "asr", "selector")
_MEASURED = {"llm_score": "the judge's score", "ppl": "perplexity", "auto_bleu": "auto-BLEU", "num_words": "words"}


def is_toy(experiment: Experiment) -> bool:
    """Tell whether the speech is that of the embedded story world."""
    return isinstance(experiment.corpus, StoryWorld)


def units_told(contract: UnitContract) -> str:
    """Return in one phrase what the units are."""
    layer = "" if contract.layer is None else f", layer {contract.layer}"
    kept = "consecutive repeats collapsed" if contract.deduplicated else "one a frame"
    return f"{contract.num_units} units of encoder `{contract.encoder}`{layer} at {contract.frame_rate_hz:g} Hz, {kept}"


def utility_told(experiment: Experiment) -> str:
    """Return the utility that ranks continuations."""
    used = {name: weight for name, weight in experiment.params.weights.model_dump().items() if weight > 0}
    if set(used) == {"llm_score"}:
        return "that score"
    total = sum(used.values())
    return (
        " + ".join(f"{weight / total:.2g} × {_MEASURED[name]}" for name, weight in used.items())
        + ", each put on 1 to 5"
    )


def selection_told(experiment: Experiment, name: str) -> str:
    """Return how continuations become pairs."""
    selector, item = experiment.selector, experiment.params.aligned[name].rule
    never = (
        f"a continuation with auto-BLEU above {item.max_auto_bleu:g} or fewer than {selector.min_words} words is never "
        "chosen"
    )
    if isinstance(selector, ThresholdSelector):
        return (
            f"a prompt's best {selector.max_chosen} at utility {item.min_chosen_score:g} or more, each against its "
            f"worst {selector.max_rejected} at {item.max_rejected_score:g} or less, at least {item.min_margin:g} "
            f"apart; {never}"
        )
    return f"a prompt's best continuation by utility against its worst; {never}"


def judge_told(experiment: Experiment) -> str:
    """Return the judge whose scores made the pairs."""
    return judge_of(experiment.params.judge, experiment.judge)


def read_account(artifacts: Path, name: str) -> PairAccount:
    """Return the books of a round's pairs."""
    return PairAccount.model_validate_json(Artifacts(artifacts).account(name).read_text())


def account_rows(account: PairAccount) -> tuple[list[str], list[list[str]]]:
    """Return the reasons for which prompts gave no pair, and a row of counts for each split; the counts close."""
    splits: dict[str, SplitAccount] = {"train": account.train, "validation": account.valid}
    reasons = [reason for reason in account.train.rejections if any(s.rejections[reason] for s in splits.values())]
    rows = [
        [
            shown, str(books.prompts), str(books.prompts_with_pairs), str(books.pairs),
            "–" if books.mean_margin is None else f"{books.mean_margin:.2f}",
            *(str(books.rejections[reason]) for reason in reasons),
        ]
        for shown, books in splits.items()
    ]  # fmt: skip
    return reasons, rows


def round_rows(experiment: Experiment, artifacts: Path, rounds: list[str]) -> list[list[str]]:
    """Return thresholds and numbers of pairs of every round of a curriculum."""
    rows = []
    for name in rounds:
        item = experiment.params.aligned[name]
        rule, account = item.rule, read_account(artifacts, item.pairs)
        limits: tuple[float | None, ...] = (rule.min_chosen_score, rule.max_rejected_score, rule.min_margin)
        if not isinstance(experiment.selector, ThresholdSelector):
            limits = (None, None, rule.min_margin)
        told = ["–" if limit is None else f"{limit:g}" for limit in limits]
        rows.append([f"`{name}`", f"`{item.init_from}`", *told, str(account.train.pairs), str(account.valid.pairs)])
    return rows


def lineage_rows(lineage: Lineage, experiment: Experiment, artifacts: Path, name: str) -> list[tuple[str, str]]:
    """Return where a round comes from, as (what, value)."""
    params = experiment.params
    item, trainer = params.aligned[name], params.checkpoints[name].trainer
    weights = (f"`{_weights(artifacts, each)}`" for each in (item.init_from, name))
    return [
        ("experiment", f"`{lineage.experiment_id}`, the first digits of the next line"),
        ("dvc.lock (sha256)", f"`{lineage.lock_sha256}` of `experiment/dvc.lock`, the part this round rests on"),
        ("code", code_state(lineage)),
        ("base model", f"`{params.lm}`, {base_identity(artifacts)}"),
        ("round", f"`{name}`, from `{item.init_from}`"),
        ("weights", " → ".join(weights) + " (alignslm's hash)"),
        ("thresholds", _thresholds(item.rule)),
        ("judges", f"`{params.judge}` trains, `{params.heldout_judge}` only reports"),
        ("choices", ", ".join([*(f"{key} `{getattr(params, key)}`" for key in CHOICES), f"trainer `{trainer}`"])),
        ("seeds", ", ".join(f"{key} {value}" for key, value in params.seeds)),
        ("packages", ", ".join(f"{package} {number}" for package, number in lineage.packages.items())),
    ]  # fmt: skip


def _thresholds(item: JudgedPreferences) -> str:
    return (
        f"chosen ≥ {item.min_chosen_score:g}, rejected ≤ {item.max_rejected_score:g}, margin ≥ {item.min_margin:g}, "
        f"auto-BLEU ≤ {item.max_auto_bleu:g}"
    )


def code_state(lineage: Lineage) -> str:
    """Return which code ran, as far as git knows."""
    if lineage.commit is None:
        return "not under git; only the versions of the packages below are known"
    if not lineage.changed:
        return f"commit `{lineage.commit}`, nothing changed since"
    shown = ", ".join(f"`{file}`" for file in lineage.changed[:5])
    more = f" and {len(lineage.changed) - 5} more" if len(lineage.changed) > 5 else ""
    return f"commit `{lineage.commit}` **with uncommitted changes** in {shown}{more}: the commit alone is not what ran"


def _weights(artifacts: Path, name: str) -> str:
    record = artifacts / "checkpoints" / name / "weights.json"
    return str(json.loads(record.read_text())["model_id"]) if record.is_file() else "not recorded"


def shared_limits(experiment: Experiment) -> Iterator[str]:
    """Yield what holds for models and data of every run of this method."""
    params = experiment.params
    yield (
        "Feedback is about words only: prosody, emotion and voice are neither judged nor trained. What the recogniser "
        f"({params.asr}) mishears counts against a continuation, and a judge's taste becomes the model's."
    )
    yield (
        f"Scores of `{params.judge}`, which made the pairs, flatter whatever was trained on them; read "
        f"`{params.heldout_judge}`, which took no part, beside them."
    )
    if is_toy(experiment):
        yield (
            "Training judge and held-out judge were fitted on texts of one grammar, so they agree more than "
            "independent judges would."
        )

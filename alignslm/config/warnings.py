"""Likely mistakes in a valid experiment: `alignslm check` prints them as warnings."""

import math
from collections.abc import Iterator

from alignslm.config.corpora import Recordings
from alignslm.config.crosschecks import SPECIAL_TOKENS
from alignslm.config.experiment import Experiment
from alignslm.config.models import LlamaScratchConfig, has_preference_term


def warnings(experiment: Experiment) -> list[str]:
    """Return what is allowed but affects the interpretation of the results."""
    return [
        *_judge_warnings(experiment),
        *_rate_warnings(experiment),
        *_baseline_warnings(experiment),
        *_curriculum_warnings(experiment),
        *_length_warnings(experiment),
    ]


def _judge_warnings(experiment: Experiment) -> Iterator[str]:
    params = experiment.params
    if params.judge == params.heldout_judge:
        yield f"heldout_judge is the training judge ({params.judge}), so no reported score is held out"
    if params.weights.judge_score == params.weights.ppl == 0:
        yield "weights.judge_score and weights.ppl are both 0: pairs do not depend on the judge"
    if not params.toplines:
        yield "no system has source: corpus/utterances, so the report cannot show the topline of the judges"


def _rate_warnings(experiment: Experiment) -> Iterator[str]:
    spoken = experiment.corpus.sample_rate_hz
    for key in ("encoder", "vocoder", "asr"):
        rate = getattr(experiment, key).sample_rate_hz
        if rate > spoken:
            yield f"{key} works at {rate} Hz, but the corpus has {spoken} Hz: there is nothing above {spoken // 2} Hz"


def _length_warnings(experiment: Experiment) -> Iterator[str]:
    """Training on whole utterances ends at one that is too long; how many units it has is known only once encoded."""
    corpus, lm, params = experiment.corpus, experiment.lm, experiment.params
    if isinstance(corpus, Recordings) and isinstance(lm, LlamaScratchConfig):
        longest = math.ceil(corpus.max_duration_s * experiment.encoder.frame_rate_hz) + SPECIAL_TOKENS
        if longest > lm.max_position_embeddings:
            yield (
                f"utterances of corpus {params.corpus} may last {corpus.max_duration_s:g} s (max_duration_s), which is "
                f"up to {longest} tokens, but lm {params.lm} has {lm.max_position_embeddings} positions "
                "(max_position_embeddings): a longer one ends the stage base; lower the one or raise the other"
            )


def _baseline_warnings(experiment: Experiment) -> Iterator[str]:
    params = experiment.params
    for name in params.rounds:
        if not has_preference_term(experiment.checkpoints[name]):
            trainer = params.checkpoints[name].trainer
            yield f"checkpoints.{name}: {trainer} has no preference term: the round is fine-tuning on chosen samples"
    sft = experiment.checkpoints.get("sft")
    if sft is not None and has_preference_term(sft):
        trainer = params.checkpoints["sft"].trainer
        yield f"checkpoints.sft: {trainer} has a preference term: it is not fine-tuning on the chosen samples only"


def _curriculum_warnings(experiment: Experiment) -> Iterator[str]:
    params = experiment.params
    made_from = {item.pairs: name for name, item in params.rounds.items()}
    for name, preferences in params.preferences.items():
        before = params.rounds.get(preferences.sampled_from)
        if before is not None and (
            preferences.min_chosen_score < before.rule.min_chosen_score
            or preferences.max_rejected_score < before.rule.max_rejected_score
        ):
            yield f"preferences.{name} has lower thresholds than preferences.{before.pairs}, which it continues"
        if (trained := made_from.get(name)) and (start := params.rounds[trained].init_from) != preferences.sampled_from:
            yield (
                f"checkpoints.{trained} starts from {start}, but its pairs were sampled from "
                f"{preferences.sampled_from}: they are not its own continuations"
            )
    evaluated = {item.pairs for item in params.rounds.values()}
    for name, item in params.aligned.items():
        if item.pairs not in evaluated:
            yield f"checkpoints.{name} is not evaluated; add systems.{name}: {{source: checkpoints/{name}}}"

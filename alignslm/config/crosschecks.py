"""Checks across files: contradictions between the configs of an experiment."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from alignslm.config.corpora import Recordings
from alignslm.config.document import KeyPath
from alignslm.config.evaluation import ToyLexical, ToyStoryCloze, ToySyntactic
from alignslm.config.experiment import Experiment, published_checkpoints
from alignslm.config.feedback import ThresholdSelector
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig, OpenAIJudgeConfig
from alignslm.config.model import Config
from alignslm.config.models import (
    LlamaScratchConfig,
    NextUnitTrainerConfig,
    OnlineTrainerConfig,
    PreferenceTrainerConfig,
    RewardTrainerConfig,
)
from alignslm.config.preferences import UnitPreferences
from alignslm.config.pretrained_lm import PublishedLm, TrainingUnits, TwistInitConfig
from alignslm.config.publishing import PLACEHOLDER_OWNER, HubPublishing
from alignslm.config.speech import CharCTCASRConfig, ConvGriffinLimConfig, MFCCKMeansConfig, StoryWorldConfig
from alignslm.config.unit_hifigan import ScratchUnitHiFiGANConfig, UnitHiFiGANConfig

PARAMS: KeyPath = ()
SPECIAL_TOKENS = 2  # begin and end of sequence


@dataclass(frozen=True)
class Conflict:
    """A contradiction, shown at `key` of the config that params.yaml's key `choice` names; PARAMS is params.yaml."""

    choice: KeyPath
    key: KeyPath
    message: str


def conflicts(experiment: Experiment) -> list[Conflict]:
    """Return every disagreement that would make a stage fail or its result meaningless."""
    return [
        *_too_few_stories(experiment),
        *_impossible_cut(experiment),
        *_items_without_world(experiment),
        *_broken_rates(experiment),
        *_wrong_shapes(experiment),
        *_long_warmups(experiment),
        *_wrong_trainers(experiment),
        *_too_large_rollouts(experiment),
        *_unreported_curriculum(experiment),
        *_too_few_positions(experiment),
        *_unit_mismatch(experiment),
        *_vocoder_mismatch(experiment),
        *_too_few_pairs(experiment),
        *_empty_split(experiment),
        *_unmeasured_perplexity(experiment),
        *_unfit_repositories(experiment),
    ]


def _too_few_stories(experiment: Experiment) -> Iterator[Conflict]:
    """Every prompt is the beginning of another story of its split."""
    prompts = experiment.params.prompts
    for split, stories in experiment.corpus.stories if isinstance(experiment.corpus, StoryWorldConfig) else ():
        if (wanted := getattr(prompts, split)) > stories:
            yield Conflict(
                PARAMS,
                ("prompts", split),
                f"{wanted} prompts wanted, but {experiment.params.corpus} has {stories} {split} stories; "
                f"lower this, or raise stories.{split} in experiments/corpus/{experiment.params.corpus}.yaml",
            )


def _impossible_cut(experiment: Experiment) -> Iterator[Conflict]:
    """A cut needs what only some corpora know: where a first sentence ends, or where every word does."""
    cut, corpus, name = experiment.params.prompts.cut_at, experiment.corpus, experiment.params.corpus
    if cut == "sentence" and isinstance(corpus, Recordings):
        message = f"'sentence' needs sentence ends, which {name} does not have; write time, or word where it is aligned"
        yield Conflict(PARAMS, ("prompts", "cut_at"), message)
    if cut == "word" and isinstance(corpus, StoryWorldConfig):
        message = f"'word' needs word times, which {name} does not have; write sentence or time"
        yield Conflict(PARAMS, ("prompts", "cut_at"), message)
    if cut == "word" and isinstance(corpus, Recordings) and all(p.alignments is None for p in corpus.parts.values()):
        message = (
            f"'word' needs word times, and no part of {name} has alignments; name them in parts.*.alignments of "
            f"experiments/corpus/{name}.yaml, or write time"
        )
        yield Conflict(PARAMS, ("prompts", "cut_at"), message)


def _items_without_world(experiment: Experiment) -> Iterator[Conflict]:
    """The toy benchmarks are spoken by the corpus's own voice from its own grammar."""
    for name, benchmark in experiment.benchmarks.items():
        if isinstance(benchmark, ToyLexical | ToySyntactic | ToyStoryCloze) and isinstance(
            experiment.corpus, Recordings
        ):
            message = f"{benchmark.kind} is made of the story world, but corpus {experiment.params.corpus} is recorded"
            yield Conflict(PARAMS, ("benchmarks", name), message)


def _broken_rates(experiment: Experiment) -> Iterator[Conflict]:
    """A unit must last a whole number of samples to the encoder and of mel frames to the vocoder."""
    encoder, vocoder = experiment.encoder, experiment.vocoder
    if encoder.sample_rate_hz % encoder.frame_rate_hz:
        message = f"{encoder.sample_rate_hz} Hz is not a multiple of frame_rate_hz ({encoder.frame_rate_hz:g})"
        yield Conflict(("encoder",), ("sample_rate_hz",), message)
    if isinstance(vocoder, ConvGriffinLimConfig) and vocoder.sample_rate_hz % (
        encoder.frame_rate_hz * vocoder.hop_samples
    ):
        yield Conflict(
            ("vocoder",),
            ("hop_samples",),
            f"a unit lasts {vocoder.sample_rate_hz} / {encoder.frame_rate_hz:g} = "
            f"{vocoder.sample_rate_hz / encoder.frame_rate_hz:g} samples "
            f"(sample_rate_hz over {experiment.params.encoder}'s frame_rate_hz), "
            f"which is not a multiple of hop_samples ({vocoder.hop_samples})",
        )
    if isinstance(vocoder, ScratchUnitHiFiGANConfig):
        lasts = vocoder.sample_rate_hz / encoder.frame_rate_hz
        if vocoder.samples_per_frame != lasts:
            message = (
                f"multiply to {vocoder.samples_per_frame} samples per unit, but a unit of {experiment.params.encoder} "
                f"lasts {lasts:g} ({vocoder.sample_rate_hz} Hz / {encoder.frame_rate_hz:g})"
            )
            yield Conflict(("vocoder",), ("upsample_rates",), message)


def _wrong_shapes(experiment: Experiment) -> Iterator[Conflict]:
    """Attention heads share the hidden size evenly, an even number each (rotary positions turn pairs)."""
    lm = experiment.lm
    if isinstance(lm, LlamaScratchConfig) and lm.hidden_size % (2 * lm.num_attention_heads):
        least = 2 * lm.num_attention_heads
        message = f"hidden_size ({lm.hidden_size}) must be a multiple of 2 x num_attention_heads ({least})"
        yield Conflict(("lm",), ("hidden_size",), message)
    framed: dict[str, Config] = {"vocoder": experiment.vocoder, "asr": experiment.asr}
    for key, speech in framed.items():
        if isinstance(speech, ConvGriffinLimConfig | CharCTCASRConfig) and speech.window_samples < speech.hop_samples:
            message = f"window_samples must be at least hop_samples ({speech.hop_samples}), or samples are lost"
            yield Conflict((key,), ("window_samples",), message)
    encoder = experiment.encoder
    if isinstance(encoder, MFCCKMeansConfig) and encoder.stacked_frames % 2 == 0:
        message = f"must be odd, found {encoder.stacked_frames}: as many frames before as after"
        yield Conflict(("encoder",), ("stacked_frames",), message)


def _long_warmups(experiment: Experiment) -> Iterator[Conflict]:
    trained: dict[KeyPath, object] = {("lm",): experiment.lm}
    trained |= {("checkpoints", name, "trainer"): trainer for name, trainer in experiment.checkpoints.items()}
    for key, model in trained.items():
        if (
            isinstance(model, LlamaScratchConfig | TwistInitConfig | NextUnitTrainerConfig | OnlineTrainerConfig)
            and model.warmup_steps >= model.max_steps
        ):
            message = f"warms up for {model.warmup_steps} of {model.max_steps} steps and never trains at full rate"
            yield Conflict(key, ("warmup_steps",), message)


def _wrong_trainers(experiment: Experiment) -> Iterator[Conflict]:
    """Pairs are learnt by preference training, speech by next-unit training, scores and rewards by online training."""
    kinds = {"pairs": "preference", "scores": "online", "rewards": "online"}
    for name, checkpoint in experiment.params.checkpoints.items():
        wanted = kinds.get(checkpoint.train_on.partition("/")[0], "next-unit")
        if (kind := experiment.checkpoints[name].kind) != wanted:
            message = f"trains on {checkpoint.train_on}, but {checkpoint.trainer} is of kind {kind}, not {wanted}"
            yield Conflict(PARAMS, ("checkpoints", name, "trainer"), message)
    for name, trainer in experiment.reward_models.items():
        if not isinstance(trainer, RewardTrainerConfig):
            message = f"{experiment.params.reward_models[name].trainer} is of kind {trainer.kind}, not reward"
            yield Conflict(PARAMS, ("reward_models", name, "trainer"), message)


def _too_large_rollouts(experiment: Experiment) -> Iterator[Conflict]:
    """A rollout takes prompts that there are, and continuations that the model has positions for."""
    prompts, longest = experiment.params.prompts.train, experiment.params.sampling.max_new_units
    for name, trainer in experiment.checkpoints.items():
        if isinstance(trainer, OnlineTrainerConfig) and trainer.prompts_per_rollout > prompts:
            message = f"{trainer.prompts_per_rollout} prompts wanted, but prompts.train is {prompts}"
            yield Conflict(("checkpoints", name, "trainer"), ("prompts_per_rollout",), message)
        if isinstance(trainer, OnlineTrainerConfig) and trainer.max_new_units > longest:
            message = f"{trainer.max_new_units} units, more than sampling.max_new_units ({longest}), which is evaluated"
            yield Conflict(("checkpoints", name, "trainer"), ("max_new_units",), message)


def _unreported_curriculum(experiment: Experiment) -> Iterator[Conflict]:
    """The report is about a round's change, so a round must be evaluated, under its own name."""
    params = experiment.params
    for name, system in params.systems.items():
        if name in params.checkpoints and system.checkpoint != name:
            message = f"is named like the checkpoint {name}, but is {system.source}; rename it"
            yield Conflict(PARAMS, ("systems", name, "source"), message)
        elif name in params.checkpoints and system.temperature_scale != 1.0:
            message = f"has the name of the checkpoint {name}, but samples at another temperature; rename it"
            yield Conflict(PARAMS, ("systems", name, "temperature_scale"), message)
    if not params.aligned:
        message = "no checkpoint is trained on judged preferences, so there is nothing to report; add one"
        yield Conflict(PARAMS, ("checkpoints",), message)
    elif not params.rounds:
        name = list(params.aligned)[-1]
        message = f"no round is evaluated, so there is nothing to report; add {name}: {{source: checkpoints/{name}}}"
        yield Conflict(PARAMS, ("systems",), message)


def _too_few_positions(experiment: Experiment) -> Iterator[Conflict]:
    """The longest prompt, before deduplication, and the longest continuation fit the model together."""
    prompts, sampling = experiment.params.prompts, experiment.params.sampling
    prompt_units = math.ceil(prompts.max_duration_s * experiment.encoder.frame_rate_hz)
    if prompts.min_units > prompt_units:
        limit = f"max_duration_s ({prompts.max_duration_s:g} s)"
        message = f"no prompt of at most {limit} can have more than {prompt_units} units"
        yield Conflict(PARAMS, ("prompts", "min_units"), message)
    needed = prompt_units + sampling.max_new_units + SPECIAL_TOKENS
    if isinstance(experiment.lm, LlamaScratchConfig) and experiment.lm.max_position_embeddings < needed:
        yield Conflict(
            ("lm",),
            ("max_position_embeddings",),
            f"{experiment.lm.max_position_embeddings} positions, but a prompt of {prompt_units} units "
            f"(prompts.max_duration_s), "
            f"sampling.max_new_units ({sampling.max_new_units}) and {SPECIAL_TOKENS} special tokens need {needed}",
        )


def _unit_mismatch(experiment: Experiment) -> Iterator[Conflict]:
    """Imported units are those of their own encoder, whichever is configured; the rest is checked after it ran."""
    lm, params = experiment.lm, experiment.params
    if isinstance(lm, PublishedLm):
        for name, there, here in _other_units(lm.units, experiment):
            message = (
                f"{params.lm} was trained on units of {name} {there}, "
                f"but encoder {params.encoder} gives {here}; choose the encoder it was trained with"
            )
            yield Conflict(("lm",), ("units", name), message)
    for key, preferences in experiment.imported_preferences.items():
        if isinstance(preferences, UnitPreferences):
            for name, there, here in _other_units(preferences.units, experiment):
                message = (
                    f"{params.imported_preferences[key]} has units of {name} {there}, "
                    f"but encoder {params.encoder} gives {here}; choose the encoder they were made with"
                )
                yield Conflict(("imported_preferences", key), ("units", name), message)


def _other_units(stated: TrainingUnits, experiment: Experiment) -> Iterator[tuple[str, object, object]]:
    """Yield (field, stated, the encoder's) if both are known and differ."""
    encoder = experiment.encoder
    known = {name: getattr(encoder, name, None) for name in ("num_units", "frame_rate_hz", "layer")}
    known["codebook_file_sha256"] = getattr(getattr(encoder, "codebook", None), "sha256", None)
    for name, here in known.items():
        there = getattr(stated, name)
        if None not in (here, there) and here != there:
            yield name, there, here


def _vocoder_mismatch(experiment: Experiment) -> Iterator[Conflict]:
    """A published vocoder speaks the units it was trained on; others of the same number would sound like anything."""
    encoder, vocoder = experiment.encoder, experiment.vocoder
    if not isinstance(vocoder, UnitHiFiGANConfig):
        return
    here: dict[str, int | str | None] = {"layer": None, "codebook_file_sha256": None}
    if isinstance(encoder, HubertEncoderConfig):
        unknown = vocoder.codebook_file_sha256  # a folder's file is hashed only when it is used
        here = {"layer": encoder.layer, "codebook_file_sha256": getattr(encoder.codebook, "sha256", unknown)}
    for name, given in here.items():
        if (wanted := getattr(vocoder, name)) not in {None, given}:
            yield Conflict(
                ("vocoder",),
                (name,),
                f"{experiment.params.vocoder} has units of {name} {wanted}, but encoder {experiment.params.encoder} "
                f"gives {'none' if given is None else given}; choose the encoder it was trained with",
            )


def _too_few_pairs(experiment: Experiment) -> Iterator[Conflict]:
    """Even if every prompt gave as many pairs as it can, training would be refused."""
    params = experiment.params
    for name, trainer in experiment.checkpoints.items():
        if not isinstance(trainer, PreferenceTrainerConfig) or params.checkpoints[name].pairs not in params.preferences:
            continue
        each = params.sampling.num_continuations if trainer.unpaired else pairs_per_prompt(experiment)
        if trainer.min_pairs > (most := params.prompts.train * each):
            rows = "continuations" if trainer.unpaired else "pairs"
            message = f"{trainer.min_pairs} {rows} wanted, but {params.prompts.train} prompts give at most {most}"
            yield Conflict(("checkpoints", name, "trainer"), ("min_pairs",), message)
        if trainer.unpaired and not isinstance(experiment.selector, ThresholdSelector):
            message = (
                f"{params.selector} has no thresholds, by which {params.checkpoints[name].trainer} of checkpoints."
                f"{name} tells desirable from undesirable continuations; choose thresholds or quantiles"
            )
            yield Conflict(PARAMS, ("selector",), message)
    most = params.prompts.train * pairs_per_prompt(experiment)
    for name, reward in experiment.reward_models.items():
        if isinstance(reward, RewardTrainerConfig) and reward.min_pairs > most:
            message = f"{reward.min_pairs} pairs wanted, but {params.prompts.train} prompts give at most {most}"
            yield Conflict(("reward_models", name, "trainer"), ("min_pairs",), message)


def pairs_per_prompt(experiment: Experiment) -> int:
    """Return how many pairs the selector can make of one prompt's draws."""
    draws, selector = experiment.params.sampling.num_continuations, experiment.selector
    if not isinstance(selector, ThresholdSelector):
        return 1
    counts = product(range(1, selector.max_chosen_per_prompt + 1), range(1, selector.max_rejected_per_prompt + 1))
    return max(chosen * rejected for chosen, rejected in counts if chosen + rejected <= draws)


def _empty_split(experiment: Experiment) -> Iterator[Conflict]:
    split = experiment.params.evaluation.split
    if getattr(experiment.params.prompts, split) == 0:
        message = f"evaluates on {split!r}, but prompts.{split} is 0"
        yield Conflict(PARAMS, ("evaluation", "split"), message)


def _unmeasured_perplexity(experiment: Experiment) -> Iterator[Conflict]:
    """A metric in use that is not measured is null in every row, and no pair would be found."""
    judge, params = experiment.judge, experiment.params
    silent = isinstance(judge, OpenAIJudgeConfig) or (
        isinstance(judge, CausalLMJudgeConfig) and not judge.compute_perplexity
    )
    if params.weights.ppl > 0 and silent:
        message = f"{params.judge} gives no perplexity; set it to 0, or choose a judge that does, such as mistral-7b"
        yield Conflict(PARAMS, ("weights", "ppl"), message)


def _unfit_repositories(experiment: Experiment) -> Iterator[Conflict]:
    """A placeholder is not an account, and two rounds in one repository would overwrite each other."""
    if not isinstance(experiment.publish, HubPublishing):
        return
    rounds = published_checkpoints(experiment)
    for key, repo in experiment.publish.repositories():
        if repo.startswith(f"{PLACEHOLDER_OWNER}/"):
            message = f"{PLACEHOLDER_OWNER!r} is a placeholder; write your account's or organisation's name"
            yield Conflict(("publish",), tuple(key.split(".")), message)
        elif len(rounds) > 1 and "{round}" not in repo:
            message = f"{', '.join(rounds)} would overwrite each other in {repo}; add {{round}}, or write rounds: last"
            yield Conflict(("publish",), tuple(key.split(".")), message)

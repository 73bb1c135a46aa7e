"""How much an experiment computes: prompts, continuations, speech, transcripts and judge requests."""

from pathlib import Path
from typing import Literal, NamedTuple

from alignslm.config.corpora import SPLITS, LibriSpeechPart, MlsPart, PartConfig, Recordings, SplitName
from alignslm.config.experiment import Experiment
from alignslm.config.feedback import JudgeConfig
from alignslm.config.llm_judges import CalibratedPerplexity, CausalLMJudgeConfig, GeneratedRating, OpenAIJudgeConfig
from alignslm.config.models import OnlineTrainerConfig, PreferenceTrainerConfig
from alignslm.config.sources import FolderSource
from alignslm.plan.downloads import size_of

WORDS_PER_S = 2.7  # of English read aloud, as LibriSpeech is
TOKENS_PER_WORD = 1.4  # of English, in the tokenizers of large judges
RUNS_PER_UNIT = 1.5  # frames per deduplicated unit, about
FLAC_BYTES_PER_H = 3600 * 16000 * 2 * 0.6  # of speech at 16 kHz
SAVED_STEPS = 5  # of a run that no pairs evaluate
STORY_WORDS = 18  # of a storyworld utterance, with its pauses

# Utterances and hours of published subsets: openslr.org/12 and arXiv 2012.03411, tables 2 and 3.
PUBLISHED: dict[type, dict[str, tuple[int, float]]] = {
    LibriSpeechPart: {
        "train-clean-100": (28_539, 100.6),
        "train-clean-360": (104_014, 363.6),
        "train-other-500": (148_688, 496.7),
        "dev-clean": (2_703, 5.4),
        "dev-other": (2_864, 5.3),
        "test-clean": (2_620, 5.4),
        "test-other": (2_939, 5.1),
    },
    MlsPart: {"train": (10_808_037, 44_659.7), "dev": (3_807, 15.8), "test": (3_769, 15.6)},
}


class JudgeRequests(NamedTuple):
    """Requests to one judge. Tokens are estimates, `written_tokens` an upper bound; both are 0 for fitted judges.

    `usd` is what reading and at most writing them costs, if the judge's config has a price.
    """

    key: str
    choice: str
    stories: int
    requests: int
    read_tokens: int
    written_tokens: int
    usd: tuple[float, float] | None = None


class Workload(NamedTuple):
    """Counts of rows. Continuations are of all rounds together, `online` those that training draws, `guarded` guards.

    Of `chosen_from`, best-of-N takes the best. Speech is in hours, at most; corpus None: unknown.
    """

    corpus_h: float | None
    prompts: int
    prompts_transcribed: int
    continuations: int
    evaluated: int
    online: int
    guarded: int
    chosen_from: int
    rounds: int
    speech_h: float
    asked: list[JudgeRequests]


def volume_of(experiment: Experiment, root: Path) -> Workload:
    """Count what the parameters imply. Reads only the rubrics."""
    params = experiment.params
    prompts, sampling = params.prompts, params.sampling
    drawn = (prompts.train + prompts.valid) * sampling.num_continuations * len(params.preferences)
    held_out = getattr(prompts, params.evaluation.split) * params.evaluation.num_continuations
    evaluated = held_out * len(params.systems)
    online = sum(drawn_online(experiment, name) for name, one in params.checkpoints.items() if one.scores)
    guarded = sum(drawn_by_guard(experiment, name) for name in params.guards)
    chosen_from = held_out * sum(one.num_continuations for one in params.best_of.values())
    total = prompts.train + prompts.valid + prompts.dev + prompts.test
    longest_s = sampling.max_new_units * RUNS_PER_UNIT / experiment.encoder.frame_rate_hz
    return Workload(
        corpus_h=corpus_hours(experiment),
        prompts=total,
        prompts_transcribed=total if prompts.cut_at == "time" else 0,
        continuations=drawn,
        evaluated=evaluated,
        online=online,
        guarded=guarded,
        chosen_from=chosen_from,
        rounds=len(params.preferences),
        speech_h=(drawn + evaluated + online + guarded + chosen_from) * longest_s / 3600,
        asked=[
            _asked(experiment, "judge", drawn + evaluated + online + guarded + chosen_from, root),
            _asked(experiment, "heldout_judge", evaluated + guarded, root),
        ],
    )


def drawn_online(experiment: Experiment, name: str) -> int:
    """Return how many continuations a checkpoint's trainer draws as it trains."""
    trainer = experiment.checkpoints[name]
    return trainer.num_rollouts * trainer.batch_size if isinstance(trainer, OnlineTrainerConfig) else 0


def drawn_by_guard(experiment: Experiment, name: str) -> int:
    """Return how many continuations a guard draws, and has judged twice: of the start and of every saved step."""
    guard = experiment.params.guards[name]
    trainer = experiment.checkpoints[guard.steps_of]
    saved = trainer.num_evals if isinstance(trainer, PreferenceTrainerConfig) else SAVED_STEPS
    return (1 + saved) * experiment.params.prompts.valid * guard.num_continuations


def _asked(experiment: Experiment, key: Literal["judge", "heldout_judge"], stories: int, root: Path) -> JudgeRequests:
    params = experiment.params
    choice: str = getattr(params, key)
    judge: JudgeConfig = getattr(experiment, key)
    if not isinstance(judge, CausalLMJudgeConfig | OpenAIJudgeConfig):
        return JudgeRequests(key, choice, stories, 0, 0, 0)
    spoken_s = (
        params.prompts.max_duration_s + params.sampling.max_new_units * RUNS_PER_UNIT / experiment.encoder.frame_rate_hz
    )
    rubric = root / "experiments" / "rubric" / f"{judge.rubric}.txt"
    unread = isinstance(judge, CausalLMJudgeConfig) and isinstance(judge.score, CalibratedPerplexity)
    words = len(rubric.read_text(encoding="utf-8").split()) if rubric.is_file() and not unread else 0
    one = round((words + spoken_s * WORDS_PER_S) * TOKENS_PER_WORD)
    match judge:
        case OpenAIJudgeConfig():
            requests, written = stories * judge.decoding.num_votes, judge.decoding.max_tokens
        case CausalLMJudgeConfig(score=GeneratedRating() as decoding):
            requests, written = stories * decoding.num_votes, decoding.max_tokens
        case CausalLMJudgeConfig():
            requests, written = stories, 0
    read, written = requests * one, requests * written
    price = judge.price if isinstance(judge, OpenAIJudgeConfig) else None
    usd = (price.usd(read, 0), price.usd(0, written)) if price else None
    return JudgeRequests(key, choice, stories, requests, read, written, usd)


def corpus_hours(experiment: Experiment) -> float | None:
    """Return the hours of speech of the corpus, as published or by the size of its folder; None if unknown."""
    corpus = experiment.corpus
    if not isinstance(corpus, Recordings):
        return sum(corpus.stories.model_dump().values()) * STORY_WORDS / corpus.words_per_minute / 60
    found = [_part_hours(part) for part in corpus.parts.values()]
    known = [hours for hours in found if hours is not None]
    return sum(known) if len(known) == len(found) else None


def _part_hours(part: PartConfig) -> float | None:
    published = PUBLISHED.get(type(part), {})
    source = part.source
    folder = source.expanded()[0] if isinstance(source, FolderSource) else None
    found = size_of(folder) / FLAC_BYTES_PER_H if folder and folder.exists() else None
    if not all(subset in published for split in SPLITS for subset in part.subsets.of(split)):
        return found
    hours = sum(_split_hours(part, split, published) for split in SPLITS)
    return hours if found is None else min(hours, found)  # a folder may contain a part of the published corpus


def _split_hours(part: PartConfig, split: SplitName, published: dict[str, tuple[int, float]]) -> float:
    subsets = [published[name] for name in part.subsets.of(split)]
    utterances, hours = sum(count for count, _ in subsets), sum(hours for _, hours in subsets)
    limit = part.max_utterances.of(split)
    return hours if limit is None or limit > utterances else hours * limit / utterances

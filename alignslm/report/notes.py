"""What a reader must know to read the numbers, and where they come from."""

from collections.abc import Iterator

from alignslm.report.inputs import Setting
from alignslm.report.origin import Origin


def notes(setting: Setting) -> list[str]:
    """Return the how-to-read notes that hold for this experiment."""
    return [*_corpus(setting), *_models(setting), *_numbers(setting)]


def _corpus(setting: Setting) -> Iterator[str]:
    if setting.drift:
        yield (
            f"The training corpus was drifted on purpose: {100 * setting.drift:.0f} % of its training stories continue "
            "with another story's ending (`drift` of the corpus choice). Without it the small base model makes hardly "
            "an error and nothing is left to align; the size of every gain here depends on that choice."
        )
    yield (
        f"Every number is about {setting.draws} draws of each `{setting.split}` prompt, which took no part in any "
        "training. Scores are of transcripts: what the recogniser mishears is held against the model."
    )


def _models(setting: Setting) -> Iterator[str]:
    losses = " + ".join(f"{weight:g} × {name}" for name, weight in setting.losses.items())
    yield (
        f"`base` is the model before alignment; rounds {', '.join(setting.rounds)} train it on preference pairs "
        f"(loss {losses}, β = {setting.beta:g}). Where the loss holds `sft`, part of the method is fine-tuning on the "
        "chosen samples, and the paper's plain DPO is another choice of trainer."
    )
    yield (
        "Baselines: `base-low-temp` samples the base model at a lower temperature, `ntp` had more next-unit training "
        "on the corpus, `sft` was fine-tuned on the first round's chosen samples only. A gain that a baseline also "
        "shows is not owed to preferences."
    )
    yield (
        f"`{setting.ceiling_model}` are the prompts' true continuations through the same vocoder and recogniser: the "
        "ceiling. A model above its interval pleases the judge more than the truth does. It has one continuation a "
        "prompt, so its `distinct` is not comparable with that of models of more draws; `distinct within a draw` is."
    )


def _numbers(setting: Setting) -> Iterator[str]:
    yield (
        f"Intervals are 95 % percentile bootstraps ({setting.bootstrap.resamples} resamples) over prompts, or over "
        "item pairs of a benchmark. They hold the trained models and the sampling seed fixed: another training seed "
        "can move a number by more. Differences are paired by prompt or item, and no correction is made for looking "
        "at many of them."
    )
    yield (
        "Perplexity is the geometric mean; its differences are of log perplexity. Auto-BLEU is the share of a "
        "continuation's repeated bigrams. `grammatical` is the share of texts that the story grammar can produce word "
        "for word after that prompt: a program's check, no model takes part. Missing values are counted, not scored 0."
    )
    yield (
        "Distinct-1 and distinct-2 are different words and word pairs over all of them, one draw of every prompt taken "
        "together; they fall as texts get longer, and rise with words that do not exist, so more is not better. "
        "Silence is the share of frames of 20 ms that lie 40 dB below the "
        "clip's loudest or below -60 dB full scale. Unit error is the edit distance between the units spoken and those "
        "that the encoder finds in the sound, over those spoken: no text is needed. Word error compares what the "
        "recogniser hears of the true continuations with their known texts: as recorded, what is lost is the "
        "recogniser's own; through units and vocoder, it is all three's."
    )


def footer(setting: Setting, origin: Origin) -> list[tuple[str, str]]:
    """Return provenance as (name, value) rows."""
    return [
        ("code", (origin.git_commit or "not a git repository") + (" with uncommitted changes" if origin.dirty else "")),
        ("dvc.lock sha256", origin.dvc_lock_sha256 or "none"),
        ("choices", ", ".join(f"{key} {value}" for key, value in setting.choices.items())),
        ("packages", ", ".join(f"{name} {version}" for name, version in origin.packages.items())),
        ("python", origin.python),
        ("device", origin.device),
    ]

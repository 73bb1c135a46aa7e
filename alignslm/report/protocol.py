"""How the published figures were made and how this run's were: a sentence or two for each kind of benchmark."""

from collections.abc import Iterator

from alignslm.report.inputs import Measured, Setting
from alignslm.report.wording import convention_words

PUBLISHED = (
    "The published rows are large models of English audiobooks and other real speech (Align-SLM: TWIST units, 25 Hz, "
    "500 clusters, 1.3B and 7B parameters), judged by GPT-4o on Whisper transcripts. Published rows of one model also "
    "differ between papers, because releases, length normalisation and splits differ."
)
TOY = (
    "toy protocol. Small benchmarks of synthetic speech made of the story world that the model was trained on, the "
    "column T-StoryCloze being the `topic` subtype. Equal column names mean the same kind of question, not the same "
    "test: no figure of such a row may be compared with a published one"
)
SWUGGY = (
    "sWUGGY as released in sLM21-dataset, all pairs, and beneath it those of in-vocabulary words (counted at least "
    "once in LibriSpeech): papers print either under the one name. Voices are averaged within a word, then words; a "
    "tie counts one half, as the official scorer has it"
)
SBLIMP = (
    "sBLIMP as released in sLM21-dataset. Voices are averaged within a pair, then all pairs count the same, whatever "
    "their type; a tie counts one half, as the official scorer has it. Pairs are joined by key, where that scorer "
    "joins rows by position"
)
S_STORYCLOZE = (
    "spoken StoryCloze as released, the wrong ending being StoryCloze's own. Numbered files do not tell where an "
    "ending begins, so their story so far is always scored with it"
)
T_STORYCLOZE = (
    "topic StoryCloze as released, the wrong ending being another story's. Two incompatible sets of TWIST's figures "
    "are in print (1.3B: 61.3 in the release's own README, about 70 elsewhere). Numbered files do not tell where "
    "an ending begins, so their story so far is always scored with it"
)
COPY = (
    "a copy in slamkit's form: pairs are told by number, and neither voice, frequency nor type is left, so every "
    "recording counts the same. Its sWUGGY holds in-vocabulary words only"
)
OWN_ENDINGS = (
    "the corpus's own speech, the wrong ending being another utterance's from the same point on; no published "
    "benchmark, and comparable between systems on one corpus only"
)
SALMON = "SALMon has no column here: the papers quoted do not report it"
KINDS = {
    "swuggy": SWUGGY,
    "sblimp": SBLIMP,
    "sstorycloze": S_STORYCLOZE,
    "tstorycloze": T_STORYCLOZE,
    "reformatted": COPY,
    "salmon": SALMON,
    "own-endings": OWN_ENDINGS,
}


def protocols(setting: Setting) -> list[str]:
    """Return what a reader must know before comparing: the published protocol, then this run's by kind and judge."""
    return [PUBLISHED, *_benchmarks(setting), _likelihood(setting), _judged(setting)]


def _benchmarks(setting: Setting) -> Iterator[str]:
    toys = [name for name, item in setting.benchmarks.items() if item.kind.startswith("toy-")]
    if toys:
        yield f"{_named(toys)}: {TOY}."
    for kind, told in KINDS.items():
        found = {name: item for name, item in setting.benchmarks.items() if item.kind == kind}
        if found:
            yield f"{', '.join(_with_split(name, item) for name, item in found.items())}: {told}."


def _named(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _with_split(name: str, item: Measured) -> str:
    return f"`{name}` ({item.split} split)" if item.split else f"`{name}`"


def _likelihood(setting: Setting) -> str:
    return (
        f"An answer is right if the true side has the higher log-likelihood, {convention_words(setting.convention)}. "
        "Published rows rest on conventions of their own, which summaries do not tell: summed or per unit, with or "
        "without the end of sequence. All of them stand under Every metric of every model."
    )


def _judged(setting: Setting) -> str:
    return (
        "The column judge is GPT-4o's score in print. Here it is that of "
        f"`{setting.choices['heldout_judge']}` on transcripts of `{setting.choices['asr']}`, under this project's own "
        "wording of the rubric where it has one."
    )

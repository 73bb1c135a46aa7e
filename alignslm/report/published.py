"""Published figures, printed beside ours and never as ours. A dash in print is a None here."""

from typing import NamedTuple

SOURCE = "published summaries of arXiv 2411.01834"
SOURCE_OTHERS = "slamkit, docs/SLAM.md; SIMS, arXiv 2504.02398, table 3"


class Published(NamedTuple):
    """Accuracies in percent as printed; `judge` is GPT-4o's score on 1..5."""

    system: str
    swuggy: float | None
    sblimp: float | None
    s_storycloze: float | None
    t_storycloze: float | None
    judge: float | None


class Ablation(NamedTuple):
    """One row of the 1.3B ablation: training judge (1..5), T-StoryCloze (percent), GPT-4o (1..5)."""

    system: str
    training_judge: float
    t_storycloze: float
    judge: float


class Other(NamedTuple):
    """Rows other papers print: accuracies in percent, generation perplexity, auto-BLEU times 100."""

    system: str
    sblimp: float | None
    s_storycloze: float | None
    t_storycloze: float | None
    ppl: float | None
    auto_bleu: float | None


MAIN = (
    Published("GSLM", 64.8, 54.2, 53.3, 66.6, None),
    Published("TWIST 7B", 73.5, 58.8, 55.1, 75.4, 2.70),
    Published("Moshi 7B", 72.6, 58.8, 60.8, 83.0, None),
    Published("SPIRIT-LM 7B", 69.0, 58.3, 61.0, 82.9, None),
    Published("Align-SLM 7B, MLS + curriculum", 77.9, 62.3, 61.1, 86.8, 3.50),
    Published("human", None, None, 79.2, 90.2, None),
)
ABLATION = (
    Ablation("TWIST 1.3B", 1.66, 69.7, 1.82),
    Ablation("continued fine-tuning", 1.70, 70.7, 1.83),
    Ablation("Align-SLM, perplexity feedback", 1.88, 67.7, 1.85),
    Ablation("Align-SLM, LLM-score feedback", 2.17, 74.2, 2.06),
)
OTHERS = (
    Other("TWIST-350M", 56.2, None, None, 137.3, 3.46),
    Other("TWIST-1.3B", 57.0, 52.4, 70.6, 131.8, 3.20),
    Other("TWIST-7B", 59.0, 55.3, 74.1, 93.7, 3.06),
    Other("TWIST-13B", 59.2, 55.4, 76.4, None, None),
    Other("SyllableLM", 63.7, None, 75.4, None, None),
    Other("Cuervo & Marxer 823M", 61.3, 56.7, 78.0, None, None),
    Other("Align-SLM-1.3B", 59.8, 55.0, 80.0, None, None),
    Other("Slam-358M, without DPO", 58.5, 58.2, 80.7, 67.3, 3.25),
    Other("Slam-358M, scaled, with DPO", 61.1, 61.3, 84.2, 46.6, 3.75),
    Other("SIMS-7B (speech and text interleaved)", 59.8, 66.7, 88.3, 37.6, 4.15),
)

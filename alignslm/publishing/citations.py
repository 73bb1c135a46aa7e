# ruff: noqa: E501 (lists of authors)
"""BibTeX of what a round rests on: the method, and the models and data that its choices name."""

from collections.abc import Iterator

from alignslm.config.corpora import LibriSpeechPart, MlsPart, Recordings
from alignslm.config.experiment import Experiment
from alignslm.config.hubert import Hubert
from alignslm.config.pretrained_lm import SlamLm, TwistLm, WarmStart
from alignslm.config.unit_hifigan import UnitHifigan
from alignslm.config.whisper import Whisper


def _arxiv(key: str, title: str, authors: str, year: int, number: str) -> str:
    return (
        f"@article{{{key},\n  title = {{{title}}},\n  author = {{{authors}}},\n  year = {{{year}}},\n"
        f"  journal = {{arXiv preprint arXiv:{number}}}\n}}"
    )


ALIGN_SLM = """@inproceedings{lin2025alignslm,
  title = {Align-{SLM}: Textless Spoken Language Models with Reinforcement Learning from {AI} Feedback},
  author = {Lin, Guan-Ting and Shivakumar, Prashanth Gurunath and Gourav, Aditya and Gu, Yile and Gandhe, Ankur and Lee, Hung-yi and Bulyko, Ivan},
  booktitle = {Proceedings of the 63rd Annual Meeting of the Association for Computational Linguistics},
  year = {2025},
  note = {arXiv:2411.01834}
}"""
DPO = _arxiv(
    "rafailov2023dpo", "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and Finn, Chelsea",
    2023, "2305.18290",
)  # fmt: skip
LORA = _arxiv(
    "hu2021lora", "{LoRA}: Low-Rank Adaptation of Large Language Models",
    "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu",
    2021, "2106.09685",
)  # fmt: skip
TWIST = _arxiv(
    "hassid2023twist", "Textually Pretrained Speech Language Models", "Hassid, Michael and others", 2023, "2305.13009"
)
SLAM = _arxiv(
    "maimon2025slamming", "Slamming: Training a Speech Language Model on One {GPU} in a Day",
    "Maimon, Gallil and Elmakies, Avishai and Adi, Yossi", 2025, "2502.15814",
)  # fmt: skip
HUBERT = _arxiv(
    "hsu2021hubert", "{HuBERT}: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
    "Hsu, Wei-Ning and others", 2021, "2106.07447",
)  # fmt: skip
RESYNTHESIS = _arxiv(
    "polyak2021resynthesis", "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations",
    "Polyak, Adam and others", 2021, "2104.00355",
)  # fmt: skip
WHISPER = _arxiv(
    "radford2022whisper", "Robust Speech Recognition via Large-Scale Weak Supervision", "Radford, Alec and others", 2022,
    "2212.04356",
)  # fmt: skip
MLS = _arxiv(
    "pratap2020mls",
    "{MLS}: A Large-Scale Multilingual Dataset for Speech Research",
    "Pratap, Vineel and others",
    2020,
    "2012.03411",
)
LIBRISPEECH = """@inproceedings{panayotov2015librispeech,
  title = {Librispeech: An {ASR} corpus based on public domain audio books},
  author = {Panayotov, Vassil and Chen, Guoguo and Povey, Daniel and Khudanpur, Sanjeev},
  booktitle = {ICASSP},
  year = {2015}
}"""


def citations(experiment: Experiment) -> str:
    """Return the BibTeX entries that an experiment owes, the method's first."""
    return "\n".join(_entries(experiment))


def _entries(experiment: Experiment) -> Iterator[str]:
    yield from (ALIGN_SLM, DPO, LORA)
    if isinstance(experiment.lm, TwistLm | WarmStart):
        yield TWIST
    if isinstance(experiment.lm, SlamLm):
        yield SLAM
    if isinstance(experiment.encoder, Hubert):
        yield HUBERT
    if isinstance(experiment.vocoder, UnitHifigan):
        yield RESYNTHESIS
    if isinstance(experiment.asr, Whisper):
        yield WHISPER
    parts = experiment.corpus.parts.values() if isinstance(experiment.corpus, Recordings) else ()
    if any(isinstance(part, LibriSpeechPart) for part in parts):
        yield LIBRISPEECH
    if any(isinstance(part, MlsPart) for part in parts):
        yield MLS

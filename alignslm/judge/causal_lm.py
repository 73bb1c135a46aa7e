"""A causal language model as judge: the mean rating under its digits or an answer it writes, and perplexity.

Conventions. The rating is asked through the tokenizer's chat template if it has one. Perplexity is of the plain
text `<bos> prompt continuation`: exp of the mean negative log-probability, in nats, of the continuation's tokens
given everything before them; neither the prompt's tokens nor an end of sequence are scored. Text without a word is
status `empty` and has none. Log-probabilities are fp32 whatever the weights are in.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignslm.config.llm_judges import TRIAL, CalibratedPerplexity, CausalLMJudgeConfig, ExpectedRating, GeneratedRating
from alignslm.config.rubrics import Rubric
from alignslm.fetching import download, download_recorded
from alignslm.integrity import read_json
from alignslm.judge import PROBE, JudgeInput, JudgeOutput, judge_spoken
from alignslm.judge.calibration import (
    CALIBRATION_FILE,
    Sigmoid,
    calibrate,
    first_texts,
    require_judgement,
    try_judge,
)
from alignslm.judge.causal_weights import FOLDER, PATTERNS, SUFFIX, dequantize, load_causal
from alignslm.judge.generation import generate_replies
from alignslm.judge.prefix_cache import PrefixCache, SplitSequence
from alignslm.judge.prompt_format import JudgePromptError, PromptFormatter
from alignslm.judge.replies import aggregate_replies
from alignslm.model_cache import max_positions
from alignslm.storage import write_text

RUBRIC_FILE, SETTINGS_FILE, SOURCE_FILE = "rubric.txt", "settings.json", "source.json"
PROBE_TOKENS = 4
NATS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}  # mean difference of log-probabilities
AGREEMENT = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.05}  # ratings by one plain pass and by shared prefixes


class UnsuitableModelError(ValueError):
    """A model cannot be used as a judge: its logits are not finite, or its cache cannot be reused."""


def prepare(
    config: CausalLMJudgeConfig, texts: Sequence[JudgeInput], folder: Path, *, device: str, root: Path
) -> dict[str, float]:
    """Fetch the model, rate one story to see that it can be done, and write what names the judge into `folder`.

    Returns figures of that story, and how well the judge separates true from shuffled `texts`. The weights stay in the
    cache, but for a GGUF file's: they are dequantized into `folder`. Raises RubricError, FetchError,
    UnsuitableModelError, ...
    """
    rubric = Rubric.read(config.rubric, root)
    fetched = download(config.weights, patterns=PATTERNS)
    path = fetched.path
    if path.suffix == SUFFIX:
        path = dequantize(path, folder / FOLDER, dtype=config.dtype)
    judge = CausalLMJudge(config, rubric, *load_causal(path, dtype=config.dtype, device=device))
    if isinstance(config.score, CalibratedPerplexity):
        some = first_texts(texts, config.auc_texts)
        figures = calibrate(judge, some, config.score.calibration, folder)
        require_judgement(figures, len(some), min_auc=config.min_auc)
    else:
        least = config.min_digit_mass if isinstance(config.score, ExpectedRating) else None
        trial = try_judge(judge, texts, count=config.auc_texts, min_auc=config.min_auc, min_digit_mass=least)
        figures = judge.probe() | trial
    settings = config.model_dump(mode="json", exclude={"weights", "max_unscored", *TRIAL})
    write_text(folder / RUBRIC_FILE, rubric.text)
    write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=1, sort_keys=True) + "\n")
    write_text(folder / SOURCE_FILE, json.dumps({"weights": fetched.identity}, indent=1) + "\n")
    return figures


class CausalLMJudge:
    """Rates with a causal language model; see the module for conventions."""

    def __init__(
        self, config: CausalLMJudgeConfig, rubric: Rubric, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.config, self.model = config, model
        self.questions = PromptFormatter(rubric, tokenizer, answer_prefix=config.answer_prefix)
        self._written = config.score if isinstance(config.score, GeneratedRating) else None
        self.sigmoid: Sigmoid | None = None
        if isinstance(config.score, ExpectedRating):
            self._digit_ids = torch.tensor(self.questions.digit_ids(), device=model.device)
            self._rubric = PrefixCache(model, self.questions.head(), rows=config.batch_size)
        self._plain = PrefixCache(model, (), rows=config.batch_size)

    @classmethod
    def load(cls, config: CausalLMJudgeConfig, folder: Path, *, device: str) -> "CausalLMJudge":
        """Use the rubric and the very weights that `prepare` saw."""
        rubric = Rubric.parse((folder / RUBRIC_FILE).read_text(encoding="utf-8"), where=str(folder / RUBRIC_FILE))
        path = folder / FOLDER
        if not path.is_dir():
            identity = json.loads((folder / SOURCE_FILE).read_text())["weights"]
            path = download_recorded(config.weights, identity, patterns=PATTERNS)
        judge = cls(config, rubric, *load_causal(path, dtype=config.dtype, device=device))
        if isinstance(config.score, CalibratedPerplexity):
            judge.sigmoid = read_json(folder / CALIBRATION_FILE, Sigmoid)
        return judge

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one output per story; an empty transcript is status `empty`."""
        return judge_spoken(stories, self._judged)

    def _judged(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        unfit = [self._unfit(story) for story in stories]
        read = [story for story, problem in zip(stories, unfit, strict=True) if problem is None]
        if self.sigmoid is not None:
            judged = map(self.sigmoid.judgement, self.word_nats(read))
            return [next(judged) if problem is None else problem for problem in unfit]
        ppls = self.perplexities(read) if self.config.compute_perplexity else [None] * len(read)
        rated = iter(self._rated(read, ppls))
        return [next(rated) if problem is None else problem for problem in unfit]

    def _unfit(self, story: JudgeInput) -> JudgeOutput | None:
        """Return the judgement of a story that this model cannot read, None if it can."""
        try:
            length = self._num_positions(story)
        except JudgePromptError as error:
            return JudgeOutput(None, None, "failed", str(error))
        limit = max_positions(self.model.config.get_text_config())
        if length <= limit:
            return None
        reply = f"{length} tokens are more than the {limit} positions of {type(self.model).__name__}"
        return JudgeOutput(None, None, "too_long", reply)

    def _num_positions(self, story: JudgeInput) -> int:
        """Return how many positions judging a story takes. Raises JudgePromptError if its rating cannot be read."""
        calibrated = isinstance(self.config.score, CalibratedPerplexity)
        plain = len(self.questions.plain(story)[1]) if self.config.compute_perplexity or calibrated else 0
        if calibrated:
            return plain
        if self._written is not None:
            question = self.questions.question_ids(self.questions.text(story))
            return max(plain, len(question) + self._written.max_tokens)
        head, (stem, leaf) = self.questions.parted(story)
        return max(plain, len(head) + len(stem) + len(leaf))

    def _rated(self, stories: Sequence[JudgeInput], ppls: Sequence[float | None]) -> list[JudgeOutput]:
        if self._written is None:
            return [
                JudgeOutput(math.fsum(d * p for d, p in enumerate(found, 1)), ppl, "ok", _shown(found, mass))
                for (*found, mass), ppl in zip(self.digit_probabilities(stories), ppls, strict=True)
            ]
        votes = self._written.num_votes
        texts = [self.questions.text(story) for story in stories]
        answers = generate_replies(self.model, self.questions, texts, self._written, rows=self.config.batch_size)
        given = [answers[at : at + votes] for at in range(0, len(answers), votes)]
        prefix = self.config.answer_prefix
        return [aggregate_replies(votes, answer_prefix=prefix, ppl=ppl) for votes, ppl in zip(given, ppls, strict=True)]

    def digit_probabilities(self, stories: Sequence[JudgeInput]) -> list[list[float]]:
        """Return for every story the probabilities of the digits 1..5 among themselves, then all five's together."""
        parted = [self.questions.parted(story) for story in stories]
        found: list[list[float]] = [[]] * len(stories)
        for head, engine in ((self._rubric.head, self._rubric), ((), self._plain)):
            chosen = [row for row, one in enumerate(parted) if one[0] == head]
            values = engine.run([parted[row][1] for row in chosen], self._digits, last_only=True)
            for row, value in zip(chosen, values, strict=True):
                found[row] = value
        self._check_finite(stories, found)
        return found

    def _digits(self, logits: torch.Tensor, given: Sequence[SplitSequence]) -> list[list[float]]:
        """Reduce logits (rows, a leaf step, vocabulary) to (rows, 5 probabilities and their sum before normalising)."""
        width = logits.shape[1]
        last = torch.tensor([(len(one.leaf) - 1) % width for one in given], device=logits.device)
        at = logits[torch.arange(len(given), device=logits.device), last]
        digits = at[:, self._digit_ids]
        mass = (digits.logsumexp(-1) - at.logsumexp(-1)).exp()
        return torch.cat([digits.softmax(-1), mass[:, None]], dim=1).tolist()

    def perplexities(self, stories: Sequence[JudgeInput]) -> list[float | None]:
        """Return exp of the mean nats per continuation token; None if no token of it follows another."""
        return [math.exp(-math.fsum(values) / len(values)) if values else None for values in self.word_nats(stories)]

    def word_nats(self, stories: Sequence[JudgeInput]) -> list[list[float]]:
        """Return log p of each continuation token given all before it, in nats, without the tokens of no context."""
        contexts, sequences = [], []
        for story in stories:
            context, ids = self.questions.plain(story)
            contexts.append(max(1, len(context)))  # without any context the first token only conditions the others
            sequences.append(SplitSequence(ids[: contexts[-1] - 1], ids[contexts[-1] - 1 :]))
        nats = self._plain.run(sequences, _leaf_nats, last_only=False)
        self._check_finite(stories, nats)
        return nats

    def probe(self) -> dict[str, float]:
        """Rate one story by shared prefixes and by one plain forward pass; both must agree.

        Raises UnsuitableModelError if they do not: the model ignores position ids.
        """
        if self._written is not None:
            self.check_memory()
            return {"probe_score": self._write_probe(self._written)}
        *shared, mass = self.digit_probabilities([PROBE])[0]
        head, (stem, leaf) = self.questions.parted(PROBE)
        with torch.inference_mode():
            ids = torch.tensor([[*head, *stem, *leaf]], device=self.model.device)
            logits = self.model(ids).logits[0, -1, self._digit_ids].float()
        plain = logits.softmax(-1).tolist()
        scores = [math.fsum(d * p for d, p in enumerate(found, 1)) for found in (shared, plain)]
        if not abs(scores[0] - scores[1]) <= AGREEMENT[self.config.dtype]:
            raise UnsuitableModelError(
                f"{type(self.model).__name__} rates one story {scores[0]:.4f} when it takes up the rubric it has read "
                f"before, and {scores[1]:.4f} in one pass: its cache cannot be shared. Choose an attention model."
            )
        return {"probe_score": scores[0], "probe_digit_mass": mass}

    @torch.inference_mode()
    def check_memory(self) -> None:
        """Raise UnsuitableModelError if the model writes otherwise than one that reads all of its answer at once."""
        ids = torch.tensor([self.questions.question_ids(self.questions.text(PROBE))] * 2, device=self.model.device)
        generate: Any = self.model.generate
        options = {"output_logits": True, "return_dict_in_generate": True, "pad_token_id": self.questions.pad}
        written = generate(input_ids=ids, max_new_tokens=PROBE_TOKENS, do_sample=False, **options)
        plain = self.model(written.sequences).logits[:, ids.shape[1] - 1 : -1].float().log_softmax(-1)
        read = torch.stack(written.logits, dim=1).float().log_softmax(-1)
        worst = float((read - plain).abs().mean(-1).max())
        if not worst <= NATS[self.config.dtype]:
            raise UnsuitableModelError(
                f"{type(self.model).__name__} changes its state while it generates (log-probabilities differ by "
                f"{worst:.2g} nats). Set score to {{mode: expected-value}}, or choose another model."
            )

    def _write_probe(self, decoding: GeneratedRating) -> float:
        """Return the rating of one story that is written; sampled, of three that are, since one may miss the form."""
        several = decoding.model_copy(
            update={"num_votes": 1 if decoding.temperature == 0 else max(3, decoding.num_votes)}
        )
        text = self.questions.text(PROBE)
        replies = generate_replies(
            self.model, self.questions, [text], several, rows=min(several.num_votes, self.config.batch_size)
        )
        judged = aggregate_replies(replies, answer_prefix=self.config.answer_prefix, ppl=None)
        if judged.score is None:
            raise UnsuitableModelError(
                f"{type(self.model).__name__} gives a first story no rating ({judged.status}): "
                f"{replies[0].text[:300]!r}. Raise score.max_tokens if that is cut, else check rubric and "
                "answer_prefix, or use score.mode: expected-value."
            )
        return judged.score

    def _check_finite(self, stories: Sequence[JudgeInput], values: Sequence[Sequence[float]]) -> None:
        for story, found in zip(stories, values, strict=True):
            if not all(map(math.isfinite, found)):
                raise UnsuitableModelError(
                    f"{type(self.model).__name__} in {self.config.dtype} gives logits that are not finite for the "
                    f"continuation {story.continuation[:60]!r}. Set dtype to float32 or bfloat16 in the judge's file, "
                    "or fetch the weights anew."
                )


def _shown(probabilities: Sequence[float], mass: float) -> str:
    """Return what is stored as the reply: the five probabilities, and their sum."""
    return json.dumps({"digits": [round(p, 4) for p in probabilities], "mass": round(mass, 4)})


def _leaf_nats(logits: torch.Tensor, given: Sequence[SplitSequence]) -> list[list[float]]:
    """Reduce logits (rows, positions, vocabulary) to log p of each leaf token but the first, in nats."""
    width = logits.shape[1]
    ids = torch.tensor([[*one.leaf, *[0] * (width - len(one.leaf))] for one in given], device=logits.device)
    nats = logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0] - logits[:, :-1].logsumexp(-1)
    return [row[: len(one.leaf) - 1] for row, one in zip(nats.tolist(), given, strict=True)]

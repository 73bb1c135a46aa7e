"""The causal judge: against one pass a question, an answer written out, and one pass a story for perplexity."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alignslm.config.llm_judges import CausalLMJudgeConfig, ExpectedRating
from alignslm.config.rubrics import Rubric
from alignslm.config.sources import FolderSource
from alignslm.judge import JudgeInput
from alignslm.judge.causal_lm import CausalLMJudge
from alignslm.model_cache import left_padded
from tests.bench.case import (
    BF16_NATS,
    Answer,
    Case,
    Cost,
    Implementation,
    max_abs_difference,
    rms_difference,
    scaled_difference,
)
from tests.bench.models import SHAPES, Size, decoder, token_flop

PROMPTS, READ_PROMPTS, DRAWS, ROWS, WRITTEN = 16, 60, 5, 16, 64  # a shard has 500 stories
VOCABULARY, TINY_VOCABULARY = 8000, 200
RUBRIC_WORDS = 250  # about as many as the rubrics of experiments/rubric have tokens
PREFIX = "score : "
PROBES = ("x", "|", "the", "and")  # the judge compares questions about these to see where questions differ
PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
ONE_DIGIT, NATS = 1e-3, 1e-3  # tolerances in float32: of a rating, of ln perplexity
# Of ratings in bfloat16, root of the mean square. A rating errs by 0.63 times what its logits do if digits are about
# equally likely, and 7B's err by some 0.05 nats; another prompt, of three words less, moves ratings by 0.15.
BF16_DIGIT = 0.07


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token a word, `w0` and so on, with the digits and what the questions hold."""
    words = [PAD, BOS, EOS, UNKNOWN, *"12345", "score", ":", *PROBES]
    words += [f"w{number}" for number in range(size - len(words))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)


def stories(count: int, *, words: int, seed: int) -> list[JudgeInput]:
    """Return `DRAWS` continuations of each of `count` prompts: 8 to 15 words, then 10 to 30."""
    rng = np.random.default_rng(seed)

    def said(low: int, high: int) -> str:
        """Return `low` to `high` - 1 words, drawn evenly."""
        return " ".join(f"w{number}" for number in rng.integers(0, words, rng.integers(low, high)))

    prompts = [said(8, 16) for _ in range(count)]
    return [JudgeInput(prompt, said(10, 31)) for prompt in prompts for _ in range(DRAWS)]


def _judge(size: Size, device: str) -> CausalLMJudge:
    shape = SHAPES[size]
    vocabulary = TINY_VOCABULARY if size == "tiny" else VOCABULARY
    rubric = " ".join(f"w{number % 50}" for number in range(20 if size == "tiny" else RUBRIC_WORDS))
    config = CausalLMJudgeConfig(
        kind="causal-lm",
        weights=FolderSource(kind="folder", path="."),
        dtype="float32" if shape.dtype is torch.float32 else "bfloat16",
        rubric="bench",
        answer_prefix=PREFIX,
        score=ExpectedRating(mode="expected-value"),
        compute_perplexity=False,
        batch_size=ROWS,
    )
    model = decoder(shape, vocab_size=vocabulary, device=device)
    model.generation_config.max_length = None
    text = f"{rubric} w1 {{prompt}} w2 {{continuation}} w3"
    return CausalLMJudge(config, Rubric.parse(text, where="bench"), model, tokenizer(vocabulary))


def _asked(judge: CausalLMJudge, given: list[JudgeInput]) -> list[tuple[int, ...]]:
    parted = [judge.questions.parted(story) for story in given]
    return [(*head, *sequence.stem, *sequence.leaf) for head, sequence in parted]


def _ratings(judge: CausalLMJudge, logits: torch.Tensor) -> Answer:
    """Return the mean digit of logits (rows, vocabulary), an array a row."""
    digits = logits[:, torch.tensor(judge.questions.digit_ids(), device=logits.device)].float().softmax(-1)
    return list((digits @ torch.arange(1.0, 6.0, device=logits.device))[:, None].cpu().numpy())


@torch.inference_mode()
def _one_by_one(judge: CausalLMJudge, given: list[JudgeInput]) -> Answer:
    """Ask each question whole, in a pass of its own."""
    found: Answer = []
    for ids in _asked(judge, given):
        logits = judge.model(torch.tensor([ids], device=judge.model.device), logits_to_keep=1).logits
        found += _ratings(judge, logits[:, -1])
    return found


@torch.inference_mode()
def _generate(judge: CausalLMJudge, given: list[JudgeInput], *, written: int) -> Answer:
    """Have answers of `written` tokens written out in padded batches; rate by the digits' scores at the first token.

    Random weights write no rating that could be parsed, so the scores that generate returns are compared instead.
    """
    model: PreTrainedModel = judge.model
    found: Answer = []
    asked = _asked(judge, given)
    for start in range(0, len(asked), ROWS):
        some = asked[start : start + ROWS]
        padded, mask = left_padded(some, judge.questions.pad)
        generate: Any = model.generate
        answered = generate(
            input_ids=padded.to(model.device),
            attention_mask=mask.to(model.device),
            min_new_tokens=written,
            max_new_tokens=written,
            do_sample=False,
            pad_token_id=judge.questions.pad,
            output_logits=True,
            return_dict_in_generate=True,
        )
        found += _ratings(judge, answered.logits[0])
    return found


def _expected(judge: CausalLMJudge, given: list[JudgeInput]) -> Answer:
    return [np.array([one.score]) for one in judge.judge(given)]


def case(size: Size, *, scale: int, device: str, prompts: int = PROMPTS, write: bool = True) -> Case:
    """Build the work of rating: a rubric of 250 tokens, five continuations a prompt; `write`: also by answers."""
    judge, given = work(size, device, prompts=prompts * scale)
    written = 8 if size == "tiny" else WRITTEN
    heads = judge.questions.head()
    shape, vocab = SHAPES[size], judge.model.config.vocab_size
    distinct = [len(ids) - len(heads) for ids in _asked(judge, given)]
    shared = sum(len(story.prompt.split()) for story in given) * (1 - 1 / DRAWS)
    paths: dict[str, Implementation] = {
        "ours": lambda: _expected(judge, given),
        "question by question": lambda: _one_by_one(judge, given),
    }
    if write:
        paths["generate and parse"] = lambda: _generate(judge, given, written=written)
    exact = shape.dtype is torch.float32
    flop = (sum(distinct) - shared) * token_flop(shape, vocab_size=0, positions=len(heads))
    return Case(
        stage="judge",
        shape=f"{len(given)} stories, a rubric of {len(heads)} tokens"
        + (f"; written answers of {written} tokens" if write else ""),
        model=judge.model,
        counted="stories",
        amount=len(given),
        paths=paths,
        difference=max_abs_difference if exact else rms_difference,
        tolerance=ONE_DIGIT if exact else BF16_DIGIT,
        unit="of a rating from 1 to 5" + ("" if exact else ", root of the mean square"),
        cost=Cost(flop + 2.0 * len(given) * vocab * shape.hidden, None),
    )


def perplexity_case(size: Size, *, scale: int, device: str, prompts: int = READ_PROMPTS) -> Case:
    """Build the work of perplexity: five continuations a prompt."""
    judge, given = work(size, device, prompts=prompts * scale)
    shape, vocab = SHAPES[size], judge.model.config.vocab_size
    words = [len((story.continuation or "").split()) for story in given]
    said, exact = sum(words), shape.dtype is torch.float32
    read = said + sum(len(story.prompt.split()) for story in given) / DRAWS
    return Case(
        stage="perplexity",
        shape=f"{len(given)} stories, {DRAWS} a prompt",
        model=judge.model,
        counted="stories",
        amount=len(given),
        paths={
            "ours": lambda: [np.log([np.nan if value is None else value]) for value in judge.perplexities(given)],
            "story by story": lambda: _nats_one_by_one(judge, given),
        },
        # means of nats, times the root of their tokens
        difference=max_abs_difference if exact else scaled_difference([max(1, count) ** 0.5 for count in words]),
        tolerance=NATS if exact else BF16_NATS,
        unit="nats a token" if exact else "nats per root of a story's tokens",
        cost=Cost(read * token_flop(shape, vocab_size=0, positions=20) + 2.0 * said * vocab * shape.hidden, None),
    )


@torch.inference_mode()
def _nats_one_by_one(judge: CausalLMJudge, given: list[JudgeInput]) -> Answer:
    """Read each story whole, and average the nats of the continuation's tokens."""
    found: Answer = []
    for story in given:
        context, all_ids = judge.questions.plain(story)
        ids = torch.tensor([all_ids], device=judge.model.device)
        nats = judge.model(ids).logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[0, :, 0]
        found.append(-nats[len(context) - 1 :].double().mean(0, keepdim=True).cpu().numpy())
    return found


def work(size: Size, device: str, *, prompts: int) -> tuple[CausalLMJudge, list[JudgeInput]]:
    """Return a judge of random weights, and what it is asked."""
    count = 2 if size == "tiny" else prompts * SHAPES[size].work
    words = (TINY_VOCABULARY if size == "tiny" else VOCABULARY) - 20
    return _judge(size, device), stories(count, words=words, seed=0)

"""Answers written out by a causal language model, each the same whatever is written beside it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from alignslm.config.llm_judges import GeneratedRating
from alignslm.judge.prefix_cache import filled, rounded
from alignslm.judge.prompt_format import PromptFormatter
from alignslm.judge.replies import Reply
from alignslm.model_cache import keeps_states, left_padded
from alignslm.provenance import row_seed

STEP = 16  # lengths are rounded up to a multiple, so that a row's pass has the same shape in any company


class GumbelNoise(LogitsProcessor):
    """Makes the likeliest token a draw at `temperature`: argmax(logits / T + Gumbel noise) is distributed as softmax.

    Every row has its own generator, so its draws do not depend on its neighbours'.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:  # noqa: ARG002
        """Return scores (rows, vocabulary) with noise."""
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=g) for g in self.generators])
        return scores.float() / self.temperature - noise.log().to(scores.device)


def generate_replies(
    model: PreTrainedModel, questions: PromptFormatter, texts: Sequence[str], decoding: GeneratedRating, *, rows: int
) -> list[Reply]:
    """Return votes 0, 1, ... on the first question's text, then on the next; only what the model wrote itself.

    Equal texts get equal answers. Lengths are padded on the left and rows filled up, as in `judge.prefixes`.
    """
    asked = [(text, vote) for text in texts for vote in range(decoding.num_votes)]
    ids = [questions.question_ids(text) for text, _ in asked]
    buckets: dict[int, list[int]] = defaultdict(list)
    step = 1 if keeps_states(model) else STEP  # a state would take padding in
    for row, one in enumerate(ids):
        buckets[rounded(len(one), step)].append(row)
    answers: dict[int, Reply] = {}
    for width, members in sorted(buckets.items()):
        for some, full in filled(members, rows):
            seeds = [row_seed(decoding.seed + asked[row][1], "judge", asked[row][0]) for row in full]
            padded = left_padded([ids[row] for row in full], questions.pad, width=width)
            written = _write(model, questions, *padded, seeds=seeds, decoding=decoding)
            answers |= dict(zip(some, written, strict=False))
    return [answers[row] for row in range(len(asked))]


@torch.inference_mode()
def _write(
    model: PreTrainedModel,
    questions: PromptFormatter,
    ids: torch.Tensor,
    mask: torch.Tensor,
    *,
    seeds: Sequence[int],
    decoding: GeneratedRating,
) -> list[Reply]:
    """Return what the model writes after each row of ids, padded on the left as the mask says."""
    noise = [GumbelNoise(seeds, decoding.temperature)] if decoding.temperature > 0 else []
    generate: Any = model.generate
    written = generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=decoding.max_tokens,
        do_sample=False,
        pad_token_id=questions.pad,
        logits_processor=LogitsProcessorList(noise),
    )
    return [_reply(row[ids.shape[1] :], model, questions) for row in written]


def _reply(written: torch.Tensor, model: PreTrainedModel, questions: PromptFormatter) -> Reply:
    """Return one row's answer. A model that knows no end of sequence can only be stopped, and is never truncated."""
    known = model.generation_config and model.generation_config.eos_token_id
    ends = torch.tensor([] if known is None else known, dtype=torch.long)
    text = str(questions.tokenizer.decode(written, skip_special_tokens=True))
    ended = ends.numel() == 0 or bool(torch.isin(written, ends.to(written.device)).any())
    return Reply(text, "ok" if ended else "truncated")

"""Stories as the token ids that a causal language model reads: the question with its rubric, and the plain text."""

from transformers import PreTrainedTokenizerBase

from alignslm.config.rubrics import Rubric
from alignslm.judge import JudgeInput
from alignslm.judge.prefix_cache import Ids, SplitSequence, common_prefix

DIGITS = "12345"
_ANOTHER = JudgeInput("x", "|")  # differs from any transcript at its first character


class JudgePromptError(ValueError):
    """A question cannot be put to this model: its tokenizer does not cut ratings apart, or it is too long."""


class PromptFormatter:
    """Puts stories into a rubric and a chat template, and splits the tokens where they start to differ."""

    def __init__(self, rubric: Rubric, tokenizer: PreTrainedTokenizerBase, *, answer_prefix: str) -> None:
        self.rubric, self.tokenizer, self.answer_prefix = rubric, tokenizer, answer_prefix
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._marks = sorted(mark for mark in added | set(tokenizer.all_special_tokens) if len(mark) > 1)
        self.pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        self._digits: list[int] | None = None
        self._head: Ids | None = None

    def text(self, story: JudgeInput) -> str:
        """Return the question up to the beginning of the model's answer."""
        question = self.rubric.fill(self._unmarked(story.prompt), self._unmarked(story.continuation))
        if not self.tokenizer.chat_template:
            return f"{question.rstrip()}\n\n"
        # Some templates print today's date by default: the same story would be rated again every day.
        turns = [{"role": "user", "content": question}]
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, date_string="today")
        )

    def _unmarked(self, transcript: str) -> str:
        """Break up text that the tokenizer would read as a special token, such as the end of a turn."""
        for mark in self._marks:
            transcript = transcript.replace(mark, f"{mark[0]} {mark[1:]}")
        return transcript

    def encode(self, text: str, *, rendered: bool) -> Ids:
        """Return token ids: a rendered chat has its special tokens already, plain text gets the tokenizer's."""
        ids = self.tokenizer(text, add_special_tokens=not rendered)["input_ids"]
        eos = self.tokenizer.eos_token_id
        if not rendered and len(ids) > 1 and ids[-1] == eos:
            ids = ids[:-1]  # a few tokenizers end every text
        return tuple(ids)

    def question_ids(self, text: str) -> Ids:
        """Return the ids of a question's text."""
        return self.encode(text, rendered=bool(self.tokenizer.chat_template))

    def digit_ids(self) -> list[int]:
        """Return the token of each digit after the answer prefix.

        A tokenizer may have several tokens for a digit, or join it with the text before: all five texts are
        tokenised whole, and must differ in their last token alone. Raises JudgePromptError otherwise.
        """
        if self._digits is None:
            asked = self.text(_ANOTHER) + self.answer_prefix
            whole = [self.question_ids(asked + digit) for digit in DIGITS]
            if len({ids[:-1] for ids in whole}) > 1 or len({ids[-1] for ids in whole}) < len(DIGITS):
                ends = ", ".join(repr(self.tokenizer.convert_ids_to_tokens(list(ids[-2:]))) for ids in whole)
                raise JudgePromptError(
                    f"after the answer prefix {self.answer_prefix!r} this tokenizer does not make one token of each "
                    f"digit 1 to 5 (the texts end with {ends}). Use another answer_prefix, or score.mode: generate."
                )
            self._digits = [ids[-1] for ids in whole]
        return self._digits

    def head(self) -> Ids:
        """Return the tokens that every question begins with."""
        if self._head is None:
            some = (_ANOTHER, JudgeInput("|", "x"), JudgeInput("the", "and"))
            ids = [self._asked(story) for story in some]
            self._head = common_prefix(common_prefix(ids[0], ids[1]), ids[2])
        return self._head

    def _asked(self, story: JudgeInput) -> Ids:
        """Return the question up to right before the digit. A space before it may be part of the digit's token."""
        ids = self.question_ids(self.text(story) + self.answer_prefix + DIGITS[0])
        if ids[-1] != self.digit_ids()[0]:
            raise JudgePromptError(
                f"the digit after the answer prefix {self.answer_prefix!r} is another token for the continuation "
                f"{story.continuation[:60]!r} than for others. Use another answer_prefix, or score.mode: generate."
            )
        return ids[:-1]

    def parted(self, story: JudgeInput) -> tuple[Ids, SplitSequence]:
        """Return head, stem and leaf of a question. A question that begins otherwise than most has an empty head."""
        ids = self._asked(story)
        head = self.head() if ids[: len(self.head())] == self.head() else ()
        shared = common_prefix(ids[:-1], self._asked(JudgeInput(story.prompt, _ANOTHER.continuation)))
        cut = max(len(head), len(shared))
        return head, SplitSequence(ids[len(head) : cut], ids[cut:])

    def plain(self, story: JudgeInput) -> tuple[Ids, Ids]:
        """Return (context, all) tokens of `prompt continuation`: a token across the boundary is not context."""
        prompt, continuation = self._unmarked(story.prompt), self._unmarked(story.continuation)
        before = self.encode(prompt, rendered=False)
        ids = self.encode(f"{prompt} {continuation}".strip(), rendered=False)
        return common_prefix(before, ids[:-1]), ids

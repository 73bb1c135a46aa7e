"""A small word-level recurrent language model as a text judge, trained on clean story texts."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from alignslm.config.feedback import StoryLMJudgeConfig
from alignslm.judge import JudgeInput
from alignslm.judge.calibration import CalibratedJudge, calibrate, split_heldout
from alignslm.judge.ngram import Vocabulary, words_of
from alignslm.storage import atomic_write, write_text

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNKNOWN = range(4)
IGNORED = -100  # label that cross-entropy leaves out
ROWS = 32  # every forward pass has this many rows: kernels round by shape, so a fixed shape keeps rows independent


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: sums round alike whatever the number of cores, and so small a net gains little more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class WordLstm(nn.Module):
    """Next-word logits of an LSTM with its embedding as output matrix (Press and Wolf, 2017).

    Not a transformer: on stories of a few dozen words it judges as well in half the time, and a judge that needs
    only torch starts in a third of the time that transformers takes to import.
    """

    def __init__(self, num_tokens: int, *, hidden_size: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_tokens, hidden_size)
        nn.init.normal_(self.embed.weight, std=hidden_size**-0.5)
        self.recurrent = nn.LSTM(hidden_size, hidden_size, layers, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(num_tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (rows, words, num_tokens) for token ids (rows, words)."""
        hidden, _ = self.recurrent(self.embed(tokens))
        return hidden @ self.embed.weight.T + self.bias


class StoryLstm:
    """A continuation's words under the recurrent model, the prompt being read first.

    A word outside the vocabulary gets the model's <unk> probability spread over as many words as are known;
    otherwise <unk> would be a cheap word for gibberish.
    """

    def __init__(self, model: WordLstm, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model.eval(), vocabulary

    def word_nats(self, stories: Sequence[JudgeInput]) -> list[list[float]]:
        """Return log p of each continuation word given prompt and words before, in fp32, equal lengths together."""
        encoded = [
            ([BOS, *self.vocabulary.encode(story.prompt)], self.vocabulary.encode(story.continuation))
            for story in stories
        ]
        buckets: dict[int, list[int]] = defaultdict(list)
        for row, (prompt, continuation) in enumerate(encoded):
            buckets[len(prompt) + len(continuation)].append(row)
        found: dict[int, list[float]] = {}
        for rows in buckets.values():
            for start in range(0, len(rows), ROWS):
                some = rows[start : start + ROWS]
                scored = self._forward([prompt + continuation for prompt, continuation in (encoded[r] for r in some)])
                found |= {r: nats[len(encoded[r][0]) - 1 :] for r, nats in zip(some, scored, strict=True)}
        return [found[row] for row in range(len(stories))]

    @torch.inference_mode()
    @_one_thread()
    def _forward(self, ids: list[list[int]]) -> list[list[float]]:
        """Return log p of tokens 1.. of up to `ROWS` sequences of one length, each filled up to `ROWS` rows."""
        tokens = torch.tensor(ids + [ids[0]] * (ROWS - len(ids)))
        nats = self.model(tokens)[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        spread = torch.where(tokens[:, 1:] == UNKNOWN, math.log(max(1, len(self.vocabulary.known))), 0.0)
        return (nats - spread)[: len(ids)].tolist()

    def save(self, folder: Path) -> None:
        """Write the weights and words.json."""
        with atomic_write(folder / "model.safetensors") as partial:
            save_file(self.model.state_dict(), partial)
        shape = {"hidden_size": self.model.recurrent.hidden_size, "layers": self.model.recurrent.num_layers}
        write_text(folder / "words.json", json.dumps(shape | {"words": self.vocabulary.known}) + "\n")


def _vocabulary(known: Sequence[str]) -> Vocabulary:
    return Vocabulary(known, first=len(SPECIALS), unknown=UNKNOWN)


def load(folder: Path) -> CalibratedJudge:
    """Load what `fit` left in `folder`, onto the CPU: it is small enough for any."""
    settings = json.loads((folder / "words.json").read_text())
    vocabulary = _vocabulary(settings["words"])
    model = WordLstm(len(vocabulary), hidden_size=settings["hidden_size"], layers=settings["layers"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return CalibratedJudge(StoryLstm(model, vocabulary), folder)


def fit(config: StoryLMJudgeConfig, texts: Sequence[JudgeInput], folder: Path) -> dict[str, float]:
    """Train on nine tenths of the stories, calibrate on the rest, leave the judge in `folder`.

    Returns calibration figures and the last training loss in nats per word. Order and repeats of `texts` change
    nothing. Raises CalibrationError.
    """
    fitted, held_back = split_heldout(texts)
    vocabulary = _vocabulary(words_of(fitted))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = WordLstm(len(vocabulary), hidden_size=config.hidden_size, layers=config.layers)
    judge = StoryLstm(model, vocabulary)
    with _one_thread():
        loss = _train(judge, fitted, config)
    figures = calibrate(judge, held_back, config.calibration, folder)
    judge.save(folder)
    return figures | {"train_nats": loss}


def _train(judge: StoryLstm, stories: Sequence[JudgeInput], config: StoryLMJudgeConfig) -> float:
    """Run `steps` AdamW steps, learning rate falling linearly to zero; return the last loss in nats a token."""
    sequences = [
        [BOS, *judge.vocabulary.encode(s.prompt), *judge.vocabulary.encode(s.continuation), EOS] for s in stories
    ]
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(judge.model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=config.steps)
    judge.model.train()
    loss = torch.tensor(math.nan)
    for _ in range(config.steps):
        rows = torch.randint(len(sequences), (config.batch_size,), generator=generator).tolist()
        tokens, labels = _batch([sequences[row] for row in rows], config.word_dropout, generator)
        logits = judge.model(tokens)[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    judge.model.eval()
    return float(loss.detach())


def _batch(
    sequences: Sequence[Sequence[int]], word_dropout: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right, which a causal model cannot see; hide some words as <unk>, read and predicted as such.

    Returns tokens and labels, both (rows, longest).
    """
    tokens = pad_sequence([torch.tensor(sequence) for sequence in sequences], batch_first=True, padding_value=PAD)
    hidden = (torch.rand(tokens.shape, generator=generator) < word_dropout) & (tokens >= len(SPECIALS))
    tokens = torch.where(hidden, UNKNOWN, tokens)
    return tokens, torch.where(tokens == PAD, IGNORED, tokens)

"""Tiny judges in the public format: a Llama with its tokenizer, built by rule so that it answers as rubrics ask.

With a chat template it writes `\\boxed{d}` and ends; d depends on everything it read. Without one it is a base model
whose tokenizer has two tokens for a digit, `1` and ` 1`.
"""

import random
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignslm.config.rubrics import Rubric

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIALS = [PAD, BOS, EOS, "<|user|>", "<|assistant|>"]
CHAT = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] | trim }}{% endfor %}<|assistant|>"
TEXTS = [
    "tom walks along the beach in the morning he finds a shell and takes it home",
    "kate finds a blue boat on the beach she rinses the boat and paints it",
    "You are shown the beginning of a recording and a possible continuation of it",
    "How likely is it that the recording goes on like this? Score: 1 Score: 2 Score: 3 Score: 4 Score: 5",
]
FOLLOWING = {"<|assistant|>": ["\\boxed{"], "\\boxed{": list("12345"), **{key: ["}"] for key in "12345"}, "}": [EOS]}
EXTRA = 32  # hidden sizes beyond the one-hot of the vocabulary


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; every digit is a token of its own, and so is the beginning of the answer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIALS, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("\\boxed{", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, chat_template=CHAT
    )


def base_tokenizer() -> PreTrainedTokenizerFast:
    """BPE over words that carry the space before them; begins every text with `<s>`; has no chat template."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    alphabet = sorted(
        {letter for text in TEXTS for letter in text} | set("|{}\\\n.,:;=?'0123456789abcdefghijklmnopqrstuvwxyz")
    )
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[UNKNOWN, *SPECIALS[:3]], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $0", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN)


def sample_questions(tokenizer: PreTrainedTokenizerFast, text: str, *, count: int = 40) -> list[str]:
    """Questions by the rubric `relevance-digit` about random words of a text, up to where the digit stands."""
    rng, words = random.Random(0), text.split()
    rubric = Rubric.read("relevance-digit", Path(__file__).parent.parent)
    texts = [rubric.fill(*(" ".join(rng.choices(words, k=rng.randint(5, 15))) for _ in range(2))) for _ in range(count)]
    return [f"<s><|user|>{text.strip()}<|assistant|>\\boxed{{" if tokenizer.chat_template else text for text in texts]


def answering_llama(tokenizer: PreTrainedTokenizerFast, *, seed: int, about: str) -> LlamaForCausalLM:
    """A Llama of one layer by rule: its next token follows from the last one by a table, but for the digit.

    The residual stream holds the last token one-hot and, in `EXTRA` sizes, a random sketch of the mean of all tokens
    read; the five digits (and, weakly, all other tokens) weigh that sketch, centred on that of some sample questions
    about words of `about`: texts unlike them all get one rating.
    """
    generator = torch.Generator().manual_seed(seed)
    size, ids = len(tokenizer), tokenizer.get_vocab()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=(size + EXTRA + 15) // 16 * 16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    ).eval()
    attention, head = model.model.layers[0].self_attn, model.lm_head.weight
    with torch.no_grad():
        for weight in (attention.q_proj.weight, attention.k_proj.weight, model.model.layers[0].mlp.down_proj.weight):
            weight.zero_()
        for weight in (attention.v_proj.weight, attention.o_proj.weight):
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
        attention.o_proj.weight[:size] = 0.0
        model.get_input_embeddings().weight.copy_(10 * torch.eye(size, head.shape[1]))
        samples = [tokenizer(text, return_tensors="pt").input_ids for text in sample_questions(tokenizer, about)]
        read = torch.stack([model.model(sample)[0][0, -1] for sample in samples])
        centre, spread = read.mean(0), read[:, size : size + EXTRA].std(0).mean()
        digits = [ids[form] for digit in "12345" for form in (digit, f"▁{digit}") if form in ids]
        weights = 1.5 * torch.randn(size, EXTRA, generator=generator) / (spread * EXTRA**0.5)
        weights[[other for other in range(size) if other not in digits]] *= 0.02
        head[:, size : size + EXTRA] = weights
        head[:, :size] = -(weights @ centre[size : size + EXTRA] / read[0, :size].max())[:, None]
        for last, following in FOLLOWING.items():
            head[[ids[token] for token in following if token in ids], ids.get(last, 0)] += 3.0
    return model


def write_judge(folder: Path, *, chat: bool = True, seed: int = 0, about: str = f"{TEXTS[0]} {TEXTS[1]}") -> Path:
    """Write model and tokenizer into `folder` and return it."""
    tokenizer = chat_tokenizer() if chat else base_tokenizer()
    answering_llama(tokenizer, seed=seed, about=about).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def values_of(path: Path) -> dict[str, object]:
    """Return the config of a causal judge with these weights, as YAML has it."""
    return {
        "kind": "causal-lm",
        "weights": {"kind": "folder", "path": str(path)},
        "dtype": "float32",
        "rubric": "relevance-digit",
        "answer_prefix": "\\boxed{",
        "score": {"mode": "expected-value"},
        "compute_perplexity": True,
        "batch_size": 4,
    }

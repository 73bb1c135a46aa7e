"""Seconds of language models on this machine's device: sampling, training, judging.

They are built from their architecture with random weights, which compute as fast as trained ones; of deep ones, one
layer and two are timed. None: an architecture that is not known.
"""

from collections.abc import Callable

import polars as pl
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from alignslm.config.curriculum import Checkpoint, RewardModel
from alignslm.config.llm_judges import CalibratedPerplexity, CausalLMJudgeConfig
from alignslm.config.models import (
    LlamaScratchConfig,
    NextUnitTrainerConfig,
    OnlineTrainerConfig,
    PreferenceTrainerConfig,
    RewardTrainerConfig,
    TrainerConfig,
)
from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.config.rubrics import Rubric
from alignslm.config.sources import PackageSource
from alignslm.fetching import download
from alignslm.judge import PROBE, JudgeInput
from alignslm.judge.causal_lm import CausalLMJudge
from alignslm.judge.causal_weights import FOLDER, PATTERNS, SUFFIX, dequantize, load_causal
from alignslm.lm.checkpoint import UnitLM, disable_dropout
from alignslm.lm.sampling import sample
from alignslm.plan.bench import Bench, decoding, quiet
from alignslm.plan.downloads import is_here
from alignslm.plan.memory import Shape, lm_shape, shape_of
from alignslm.plan.work import REPLY_TOKENS
from alignslm.training.kto import train_offline
from alignslm.training.next_unit import continue_training, scratch_vocabulary, train_whole

WHOLE = 50_000_000  # parameters up to which all layers are timed
TRAINED_ROWS = 64  # of a step, at most, where passes are as large as memory allows


def _lm(bench: Bench, shape: Shape, layers: int) -> UnitLM:
    """Return a model of units with random weights."""
    vocabulary = scratch_vocabulary(bench.contract.num_units)
    model = _causal(shape._replace(vocabulary=bench.contract.num_units + 3), layers)
    disable_dropout(model)
    dtype = getattr(torch, getattr(bench.experiment.lm, "dtype", "float32"))
    return UnitLM(model.eval().to(bench.device, dtype), vocabulary, bench.contract, "probe")


def _of_layers(bench: Bench, of: Callable[[Shape, int], float]) -> float | None:
    shape = lm_shape(bench.experiment)
    if shape is None:
        return None
    small = shape.parameters <= WHOLE
    return of(shape, shape.layers) if small else bench.by_layers(lambda deep: of(shape, deep), shape.layers)


def draw(bench: Bench) -> float | None:
    """Time steps in the middle of a draw: the cache is as full as it is on average."""
    sampling, rows = bench.experiment.params.sampling, bench.execution.batch_size
    prompt = (
        round(bench.sizes.prompt_s / bench.sizes.utterance_s * bench.sizes.utterance_units) + bench.sizes.units // 2
    )

    def of(shape: Shape, layers: int) -> float:
        lm = _lm(bench, shape, layers)
        prompts, seeds = bench.units(prompt, rows), [[row] for row in range(rows)]

        def run(count: int) -> object:
            return sample(lm, prompts, seeds, sampling.model_copy(update={"max_new_units": count}), batch_size=rows)

        # A batch continues, with fewer rows, until its longest continuation ends. A GPU captures its steps first.
        few, many = (10, 50) if bench.on_gpu else (2, 10)
        return bench.time(run, few, many) / rows * (bench.sizes.units + sampling.max_new_units) / 2

    return _of_layers(bench, of)


def base_step(bench: Bench) -> float | None:
    """Time a training step of the base model."""
    config = bench.experiment.lm
    assert isinstance(config, LlamaScratchConfig | TwistInitConfig)  # noqa: S101 - no other base is trained here
    utterances = bench.units(bench.sizes.utterance_units, 2 * config.batch_size)

    def of(shape: Shape, layers: int) -> float:
        lm = _lm(bench, shape, layers)

        def run(steps: int) -> object:
            few = config.model_copy(update={"max_steps": steps, "warmup_steps": 0})
            return train_whole(few, lm.model.float(), utterances, lm.vocabulary, seed=0, work=bench.fresh())

        return bench.time(run, 1, 4)

    return _of_layers(bench, of)


def train_row(bench: Bench, trainer: str) -> float | None:
    """Time training on one row: a pair, or an utterance; a CPU takes as few of them at a time as it may."""
    experiment = bench.experiment
    trained = experiment.checkpoints | experiment.reward_models
    nouns: dict[str, Checkpoint | RewardModel] = {**experiment.params.checkpoints, **experiment.params.reward_models}
    read = trained[next(name for name, one in nouns.items() if one.trainer == trainer)]
    config, sequences = _timed(read), 2 if isinstance(read, RewardTrainerConfig) else 1
    shape = lm_shape(bench.experiment)
    whole = bench.on_gpu or (shape is not None and shape.parameters <= WHOLE)
    least = 2 if isinstance(config, PreferenceTrainerConfig) and config.unpaired else 1
    rows = (config.micro_batch_size or min(config.batch_size, TRAINED_ROWS)) if whole else least
    few = config.model_copy(update={"batch_size": rows, "micro_batch_size": None})

    def of(shape: Shape, layers: int) -> float:
        def run(steps: int) -> object:
            return _train(bench, few.model_copy(update={"max_steps": steps}), _lm(bench, shape, layers), rows)

        return bench.time(run, 1, 3) / rows * sequences

    return _of_layers(bench, of)


def _timed(config: TrainerConfig) -> PreferenceTrainerConfig | NextUnitTrainerConfig:
    """Return what a row is timed by: preference training on pairs, next-unit training on single sequences.

    Online training draws them, and a reward model reads two a pair, which the caller counts.
    """
    if not isinstance(config, OnlineTrainerConfig | RewardTrainerConfig):
        return config
    fields = {name: getattr(config, name) for name in NextUnitTrainerConfig.model_fields if name != "kind"}
    return NextUnitTrainerConfig(kind="next-unit", **fields | {"max_steps": config.max_steps or 1})


def _train(bench: Bench, config: PreferenceTrainerConfig | NextUnitTrainerConfig, lm: UnitLM, rows: int) -> object:
    work = bench.fresh()
    if isinstance(config, NextUnitTrainerConfig):
        utterances = bench.units(bench.sizes.utterance_units, rows)
        return continue_training(config.model_copy(update={"warmup_steps": 0}), lm, utterances, seed=0, work=work)
    once = config.model_copy(update={"min_pairs": 1, "num_evals": 1})
    prompt = bench.sizes.utterance_units - bench.sizes.units
    pairs = pl.DataFrame({
        "split": ["train"] * rows + ["valid"],
        "prompt_units": bench.units(max(1, prompt), rows + 1),
        "chosen_units": bench.units(bench.sizes.units, rows + 1),
        "rejected_units": bench.units(bench.sizes.units, rows + 1),
        "chosen_finish_reason": ["length"] * (rows + 1),
        "rejected_finish_reason": ["length"] * (rows + 1),
    })  # fmt: skip
    return train_offline(once, lm, pairs, warmup_steps=0, seed=0, batch_size=bench.execution.batch_size, work=work)


def judge(bench: Bench, key: str) -> float | None:
    """Time a story's question and, of a judge that writes, its reply; fitted judges count as no time."""
    judge = getattr(bench.experiment, key)
    if not isinstance(judge, CausalLMJudgeConfig):
        return 0.0
    shape, rows = shape_of(judge.weights), judge.batch_size if bench.on_gpu else 1
    if shape is None:
        return _packaged_judge(bench, judge)
    asked = next(asked for asked in bench.volume.asked if asked.key == key)
    tokens = asked.read_tokens // max(1, asked.requests)
    written = min(REPLY_TOKENS, asked.written_tokens // max(1, asked.requests))

    def of(layers: int) -> float:
        model = _causal(shape, layers).eval().to(bench.device, getattr(torch, judge.dtype))
        ids = torch.zeros((rows, tokens), dtype=torch.long, device=bench.device)
        read = bench.time(quiet(lambda n: [model.model(ids) for _ in range(n)]), 1, 2)
        return (read + (bench.time(decoding(model, bench.device, rows), 2, 6) * written if written else 0.0)) / rows

    return bench.by_layers(of, shape.layers)


def _packaged_judge(bench: Bench, config: CausalLMJudgeConfig) -> float | None:
    """Time a story by a judge's own weights, if it has them in an installed package and reads no rubric."""
    here = isinstance(config.weights, PackageSource) and is_here(config.weights)
    if not here or not isinstance(config.score, CalibratedPerplexity):
        return None
    path = download(config.weights, patterns=PATTERNS).path
    if path.suffix == SUFFIX:
        path = dequantize(path, bench.fresh() / FOLDER, dtype=config.dtype)
    rows = config.batch_size if bench.on_gpu else 2
    rubric = Rubric.parse("{prompt} {continuation}", where="probe")
    model = load_causal(path, dtype=config.dtype, device=bench.device)
    judge = CausalLMJudge(config.model_copy(update={"batch_size": rows}), rubric, *model)
    stories = [JudgeInput(f"{number} {PROBE.prompt}", PROBE.continuation) for number in range(2 * rows)]
    return bench.time(lambda n: judge.word_nats(stories[:n]), rows, 2 * rows)


def _causal(shape: Shape, layers: int) -> PreTrainedModel:
    """Return a decoder-only transformer with random weights."""
    kind, own = "llama", {"num_key_value_heads": shape.kv_heads, "intermediate_size": shape.inner}
    if not shape.gated:
        kind, own = "opt", {"ffn_dim": shape.inner, "word_embed_proj_dim": shape.hidden}
    config = AutoConfig.for_model(
        kind,
        **own,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return AutoModelForCausalLM.from_config(config)

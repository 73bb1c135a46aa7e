"""GPU bytes of an experiment's models, from their shapes: config.json if it is on this machine, else as published."""

import json
from pathlib import Path
from typing import NamedTuple

from alignslm.config.experiment import Experiment
from alignslm.config.models import LlamaScratchConfig, Lora
from alignslm.config.pretrained_lm import TwistInitConfig
from alignslm.config.sources import AnySource, FolderSource, HubSource, PackageSource, UrlSource

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER_BYTES = 16  # of a trained parameter: fp32 weight, gradient, and Adam's two moments


class Shape(NamedTuple):
    """A decoder-only transformer. `gated`: three matrices per feed-forward block, as in Llama, instead of two."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    gated: bool

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every matrix of one layer."""
        keys = self.hidden // self.heads * self.kv_heads
        attention = [(self.hidden, self.hidden), (self.hidden, keys), (self.hidden, keys), (self.hidden, self.hidden)]
        up, down = (self.hidden, self.inner), (self.inner, self.hidden)
        return [*attention, up, *([up] if self.gated else []), down]

    @property
    def parameters(self) -> int:
        """All weights; norms and biases, under a thousandth, are not counted."""
        return self.layers * sum(i * o for i, o in self.linear) + self.hidden * self.vocabulary

    def adapter(self, lora: Lora) -> int:
        """Parameters of a LoRA adapter on every matrix, r (inputs + outputs) each; of named modules, at most."""
        return self.layers * sum(lora.r * (i + o) for i, o in self.linear)

    def cache_bytes(self, positions: int, width: int) -> int:
        """Bytes of keys and values of one sequence."""
        return 2 * self.layers * positions * (self.hidden // self.heads * self.kv_heads) * width


# As published; used until config.json is on this machine. Names are compared by their last part, without case.
PUBLISHED = {
    "twist-350m": Shape(1024, 24, 16, 16, 4096, 505, gated=False),
    "twist-1.3b": Shape(2048, 24, 32, 32, 8192, 505, gated=False),
    "twist-7b": Shape(4096, 32, 32, 32, 11008, 505, gated=True),
    "slam": Shape(896, 24, 14, 2, 4864, 502, gated=True),
    "slam_scaled": Shape(896, 24, 14, 2, 4864, 502, gated=True),
    "opt-125m": Shape(768, 12, 12, 12, 3072, 50272, gated=False),
    "qwen2.5-0.5b": Shape(896, 24, 14, 2, 4864, 151936, gated=True),
    "mistral-7b-instruct-v0.2": Shape(4096, 32, 32, 8, 14336, 64000, gated=True),  # embedding and head, 32 000 each
    "mistral-7b-instruct-v0.3": Shape(4096, 32, 32, 8, 14336, 65536, gated=True),
}


class Memory(NamedTuple):
    """Bytes of one model: weights, LoRA with its optimizer, cache of a batch. Weights None: unknown architecture."""

    key: str
    weights: int | None
    adapter: int
    cache: int

    @property
    def peak(self) -> int:
        """Bytes at once: a model is not trained and sampled from at the same time."""
        return (self.weights or 0) + max(self.adapter, self.cache)


def memory_of(experiment: Experiment, *, batch_size: int) -> list[Memory]:
    """Return the decoder-only language models that use the GPU, one at a time. Activations are not counted."""
    rows: list[Memory] = []
    for key in ("lm", "judge", "heldout_judge"):
        config = getattr(experiment, key)
        if getattr(config, "weights", None) is None:
            continue
        width = BYTES[getattr(config, "dtype", "float32")]
        shape = lm_shape(experiment) if key == "lm" else shape_of(config.weights)
        if shape is None:
            rows.append(Memory(key, None, 0, 0))
        elif key == "lm":
            prompts, sampling = experiment.params.prompts, experiment.params.sampling
            positions = round(prompts.max_duration_s * experiment.encoder.frame_rate_hz) + sampling.max_new_units
            cache = batch_size * shape.cache_bytes(positions, width)
            adapter = max(shape.adapter(trainer.lora) for trainer in experiment.checkpoints.values()) * ADAPTER_BYTES
            rows.append(Memory(key, shape.parameters * width, adapter, cache))
        else:
            rows.append(Memory(key, shape.parameters * width, 0, 0))
    return rows


def lm_shape(experiment: Experiment) -> Shape | None:
    """Return the shape of the base unit language model; a text model gets an embedding of units."""
    lm, vocabulary = experiment.lm, experiment.encoder.num_units + 3  # three special tokens
    if isinstance(lm, LlamaScratchConfig):
        heads, hidden = lm.num_attention_heads, lm.hidden_size
        return Shape(hidden, lm.num_hidden_layers, heads, heads, 4 * hidden, vocabulary, gated=True)
    shape = shape_of(lm.weights)
    return shape._replace(vocabulary=vocabulary) if shape and isinstance(lm, TwistInitConfig) else shape


def shape_of(source: AnySource) -> Shape | None:
    """Return a model's shape from its config.json on this machine, else as published, else None."""
    config = _config_file(source)
    if config is not None and (shape := read_shape(config)) is not None:
        return shape
    match source:
        case HubSource():
            name = source.repo
        case FolderSource():
            name = source.path
        case UrlSource():
            name = source.url.removesuffix(".zip")
        case PackageSource():
            name = source.path
    return PUBLISHED.get(name.rstrip("/").rpartition("/")[2].lower())


def _config_file(source: AnySource) -> Path | None:
    if isinstance(source, FolderSource):
        path = source.expanded()[0] / "config.json"
        return path if path.is_file() else None
    if isinstance(source, HubSource):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.repo, "config.json", revision=source.revision)
        return Path(cached) if isinstance(cached, str) else None
    return None


def read_shape(path: Path) -> Shape | None:
    """Read a transformers config.json of an OPT, Llama, Mistral or Qwen2 model, bare or nested as in slamkit."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        fields = {**read.get("base_config", {}), **read} if isinstance(read, dict) else {}
        hidden, heads = int(fields["hidden_size"]), int(fields["num_attention_heads"])
        embeddings = 1 if fields.get("tie_word_embeddings", True) else 2
        return Shape(
            hidden=hidden,
            layers=int(fields["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(fields.get("num_key_value_heads") or heads),
            inner=int(fields.get("intermediate_size") or fields.get("ffn_dim") or 4 * hidden),
            vocabulary=int(fields["vocab_size"]) * embeddings,
            gated="intermediate_size" in fields,
        )
    except (json.JSONDecodeError, KeyError, ValueError, TypeError):  # another architecture: unknown
        return None

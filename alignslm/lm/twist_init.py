"""TWIST's initialization (arXiv 2305.13009, section 3.2): a text model with a new lookup table for units."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from alignslm.lm.checkpoint import disable_dropout
from alignslm.loading import load_pretrained
from alignslm.units import UnitVocabulary


def twist_init(folder: Path, vocabulary: UnitVocabulary, *, seed: int) -> PreTrainedModel:
    """Load a text model in fp32 and replace its token embedding; equal seed, equal weights.

    The new table is drawn as the architecture draws its own. An output layer tied to the old table is tied to the new
    one; a separate one is replaced as well. All else, positions included, is the text model's.
    """
    model: PreTrainedModel = load_pretrained(AutoModelForCausalLM, folder, dtype="float32")
    disable_dropout(model)
    model.resize_token_embeddings(vocabulary.offset + vocabulary.num_units, mean_resizing=False)
    _set_specials(model, vocabulary)
    generator = torch.Generator().manual_seed(seed)
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    _draw(embedding, _spread(model), generator)
    if output.weight is not embedding.weight:
        _draw(output, _spread(model), generator)
    return model


def _set_specials(model: PreTrainedModel, vocabulary: UnitVocabulary) -> None:
    """Replace the text model's special tokens, which would be units or out of range."""
    for name in ("pad", "bos", "eos"):
        setattr(model.config, f"{name}_token_id", getattr(vocabulary, f"{name}_id"))
    # The embedding keeps the text model's padding row (OPT's is 1), whose gradient torch drops: it would freeze
    # the begin-of-sequence token, which has that id here.
    setattr(model.get_input_embeddings(), "padding_idx", vocabulary.pad_id)  # noqa: B010 - torch types it a tensor
    model.generation_config = GenerationConfig.from_model_config(model.config)


def _spread(model: PreTrainedModel) -> float:
    """Return the standard deviation of new weights: `initializer_range`, or `init_std` as OPT calls it."""
    spread = getattr(model.config, "initializer_range", getattr(model.config, "init_std", None))
    if not isinstance(spread, float):
        raise TypeError(f"{type(model.config).__name__} names no spread of new weights (initializer_range, init_std)")
    return spread


@torch.no_grad()
def _draw(layer: torch.nn.Module, spread: float, generator: torch.Generator) -> None:
    for weight in layer.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator) * spread)

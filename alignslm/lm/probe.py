"""A test of an imported model: in this library's batches it must predict the same as for plain sequences."""

import torch
from transformers import PreTrainedModel

from alignslm.lm.cache import RowReader
from alignslm.model_cache import UnsupportedModelError, keeps_states, left_padded
from alignslm.units import UnitVocabulary

AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.25}  # mean difference of a unit's log-probability, in nats
_LENGTH = 6
_ORDER = (1, 0, 1)  # rows are swapped, and one is repeated


@torch.inference_mode()
def require_readable(model: PreTrainedModel, vocabulary: UnitVocabulary) -> None:
    """Raise UnsupportedModelError if the model predicts otherwise read in batches, unit by unit, than read plainly.

    So does a model that looks ahead, one that forgets, one that is told of no padding.
    """
    units = [[(5 * at + 3 * row * row) % vocabulary.num_units for at in range(_LENGTH)] for row in range(2)]
    starts = (3, 3) if keeps_states(model) else (3, 2)
    try:
        worst = _difference(model, [vocabulary.encode(row, bos=True) for row in units], starts, vocabulary)
    except UnsupportedModelError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot continue what it has read ({type(error).__name__}: {error}). "
            "Choose another model."
        ) from error
    if not worst <= AGREEMENT[model.dtype]:
        raise UnsupportedModelError(
            f"{type(model).__name__} predicts otherwise when it reads unit by unit than when it reads all at once "
            f"(log-probabilities differ by {worst:.2g} nats): it looks ahead, or forgets. Choose another model."
        )


def _difference(
    model: PreTrainedModel, ids: list[list[int]], starts: tuple[int, int], vocabulary: UnitVocabulary
) -> float:
    """Return the greatest mean difference between units' log-probabilities, of rows that begin with so many tokens."""
    units = slice(vocabulary.offset, vocabulary.offset + vocabulary.num_units)
    plain = [model(torch.tensor([row], device=model.device)).logits[0].float().log_softmax(-1)[:, units] for row in ids]
    reader = RowReader(model, capacity=_LENGTH + 1)
    prompts = left_padded([row[:start] for row, start in zip(ids, starts, strict=True)], vocabulary.pad_id)
    found = [reader.read(*(part.to(model.device) for part in prompts))]
    reader.select(torch.tensor(_ORDER, device=model.device))
    for at in range(_LENGTH - max(starts)):
        following = [[ids[row][starts[row] + at]] for row in _ORDER]
        found.append(reader.read(torch.tensor(following, device=model.device)))
    differences = []
    for at, logits in enumerate(found):
        rows = _ORDER if at else (0, 1)
        wanted = torch.stack([plain[row][starts[row] - 1 + at] for row in rows])
        differences.append(float((logits.log_softmax(-1)[:, units] - wanted).abs().mean(-1).max()))
    return max(differences)

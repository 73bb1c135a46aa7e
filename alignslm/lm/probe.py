"""Tests of a model: in this library's batches it must predict the same as for plain sequences."""

import warnings
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from alignslm.config.feedback import Sampling
from alignslm.lm.cache import RowReader
from alignslm.lm.checkpoint import UnitLM
from alignslm.lm.draws import Draws
from alignslm.lm.fixed_shapes import DecodeShapes, FixedReader, StepGraphs, takes_fixed_shapes
from alignslm.model_cache import UnsupportedModelError, keeps_states, left_padded
from alignslm.units import UnitVocabulary

AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.25}  # mean difference of a unit's log-probability, in nats
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_LENGTH = 6
_FITTING: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
_ORDER = (1, 0, 1)  # rows are swapped, and one is repeated


@torch.inference_mode()
def require_readable(model: PreTrainedModel, vocabulary: UnitVocabulary) -> None:
    """Raise UnsupportedModelError if the model predicts otherwise read in batches, unit by unit, than read plainly.

    So does a model that looks ahead, one that forgets, one that is told of no padding.
    """
    starts = (3, 3) if keeps_states(model) else (3, 2)
    try:
        worst = _difference(model, _probe_ids(vocabulary), starts, vocabulary)
    except UnsupportedModelError:
        raise
    except FAULTS as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot continue what it has read ({type(error).__name__}: {error}). "
            "Choose another model."
        ) from error
    if not worst <= AGREEMENT[model.dtype]:
        raise UnsupportedModelError(
            f"{type(model).__name__} predicts otherwise when it reads unit by unit than when it reads all at once "
            f"(log-probabilities differ by {worst:.2g} nats): it looks ahead, or forgets. Choose another model."
        )


@torch.inference_mode()
def fits_fixed_shapes(lm: UnitLM) -> bool:
    """Return whether a model predicts the same in fixed shapes as it does plainly; it is tried once.

    Architectures differ in how they take masks and positions, and none is known to them all. One that fails in fixed
    shapes is warned of, since it is then slower on a GPU.
    """
    if lm.model not in _FITTING:
        try:
            fits = takes_fixed_shapes(lm.model) and _fixed_difference(lm) <= AGREEMENT[lm.model.dtype]
        except torch.OutOfMemoryError:  # says nothing of the model
            raise
        except FAULTS as error:
            fits = False
            warnings.warn(f"{type(lm.model).__name__} fails in fixed shapes, which are faster: {error}", stacklevel=2)
        _FITTING[lm.model] = fits
    return _FITTING[lm.model]


def _fixed_difference(lm: UnitLM) -> float:
    """Return the greatest mean difference between units' log-probabilities, drawn in fixed shapes and read plainly."""
    ids, starts = _probe_ids(lm.vocabulary), (3, 2)
    config = Sampling(num_continuations=2, temperature=1.0, top_p=1.0, max_new_units=_LENGTH)
    shapes = DecodeShapes(width_step=4, span_step=2, prompt_rows=2)
    reader = FixedReader(
        lm.model, shapes, pad_id=lm.vocabulary.pad_id, capacity=2 * _LENGTH, graphs=StepGraphs(capture=None)
    )
    prompts = [row[:start] for row, start in zip(ids, starts, strict=True)]
    draws = reader.begin(prompts, (0, 1), Draws(lm, torch.zeros(2, _LENGTH), config))
    plain, differences = _plain(lm.model, ids, lm.vocabulary), []
    for at in range(_LENGTH - max(starts)):
        wanted = torch.stack([row[start - 1 + at] for row, start in zip(plain, starts, strict=True)])
        differences.append(_mean_difference(draws.logits, wanted, lm.vocabulary))
        following = [row[start + at] for row, start in zip(ids, starts, strict=True)]
        draws.chosen.copy_(torch.tensor(following))
        reader.advance(draws)
    return max(differences)


def _probe_ids(vocabulary: UnitVocabulary) -> list[list[int]]:
    units = [[(5 * at + 3 * row * row) % vocabulary.num_units for at in range(_LENGTH)] for row in range(2)]
    return [vocabulary.encode(row, bos=True) for row in units]


def _plain(model: PreTrainedModel, ids: list[list[int]], vocabulary: UnitVocabulary) -> list[torch.Tensor]:
    """Return log-probabilities (positions, units) of each row, read alone."""
    rows = [model(torch.tensor([row], device=model.device)).logits[0].float().log_softmax(-1) for row in ids]
    return [row[:, _units(vocabulary)] for row in rows]


def _units(vocabulary: UnitVocabulary) -> slice:
    return slice(vocabulary.offset, vocabulary.offset + vocabulary.num_units)


def _mean_difference(logits: torch.Tensor, wanted: torch.Tensor, vocabulary: UnitVocabulary) -> float:
    return float((logits.log_softmax(-1)[:, _units(vocabulary)] - wanted).abs().mean(-1).max())


def _difference(
    model: PreTrainedModel, ids: list[list[int]], starts: tuple[int, int], vocabulary: UnitVocabulary
) -> float:
    """Return the greatest mean difference between units' log-probabilities, of rows that begin with so many tokens."""
    plain = _plain(model, ids, vocabulary)
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
        differences.append(_mean_difference(logits, wanted, vocabulary))
    return max(differences)

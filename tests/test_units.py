import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.units import UnitVocabulary, deduplicate, expand

FRAMES = st.lists(st.integers(0, 5), max_size=60)


@given(FRAMES)
def test_expand_inverts_deduplicate(frames):
    units, durations = deduplicate(np.array(frames, np.int64))
    assert expand(units, durations).tolist() == frames
    assert not np.any(units[1:] == units[:-1])


@given(FRAMES)
def test_deduplicate_equals_a_slow_loop(frames):
    units, durations = [], []
    for frame in frames:
        if units and units[-1] == frame:
            durations[-1] += 1
        else:
            units.append(frame)
            durations.append(1)
    found = deduplicate(np.array(frames, np.int64))
    assert (found[0].tolist(), found[1].tolist()) == (units, durations)


def test_a_run_longer_than_its_type_is_refused():
    with pytest.raises(ValueError, match="one unit repeats for 70000 frames; the audio is silent or corrupt"):
        deduplicate(np.zeros(70000, np.int64))


def test_vocabulary_adds_offset_and_specials():
    vocabulary = UnitVocabulary(num_units=10, offset=3, bos_id=1, eos_id=2, pad_id=0)
    assert vocabulary.encode([0, 9], bos=True, eos=True) == [1, 3, 12, 2]
    assert vocabulary.decode([3, 12]) == [0, 9]


def test_vocabulary_without_begin_token_adds_none():
    vocabulary = UnitVocabulary(num_units=10, offset=0, bos_id=None, eos_id=None, pad_id=10)
    assert vocabulary.encode([4], bos=True, eos=True) == [4]


def test_a_special_token_is_no_unit():
    vocabulary = UnitVocabulary(num_units=10, offset=3, bos_id=1, eos_id=2, pad_id=0)
    with pytest.raises(ValueError, match=r"token ids \[2\] are not units"):
        vocabulary.decode([3, 2])
    with pytest.raises(ValueError, match=r"units must be in \[0, 10\), got 10..10"):
        vocabulary.encode([10], bos=False)

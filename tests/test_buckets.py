"""Shapes of forward passes: few of them, every row in one, and as large as a device's memory allows."""

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import OPTConfig

from alignslm.buckets import CPU, GPU, few, filled, rounded, shapes_of, token_bytes, tokens_that_fit

TWIST = OPTConfig(hidden_size=2048, num_hidden_layers=24, ffn_dim=8192, vocab_size=504)  # of 1.3B weights


@given(st.integers(1, 1 << 20))
def test_counts_are_few_and_near(count):
    found = few(count)
    assert count <= found <= count * 9 / 8
    assert found == few(found)
    assert found >> max(0, found.bit_length() - 4) << max(0, found.bit_length() - 4) == found  # four leading bits


@given(st.integers(0, 999), st.integers(1, 64), st.integers(0, 70))
def test_lengths_are_rounded_to_the_next_step_within_the_room(length, step, more):
    allowed = [width for width in range(length, length + more + 1) if width % step == 0 or width == length + more]
    assert rounded(length, step, room=length + more) == allowed[0]


@given(
    st.lists(st.integers(), max_size=400),
    st.integers(0, 90),
    st.integers(0, 300),
    st.integers(1, 500),
    st.sampled_from([CPU, GPU, GPU._replace(tokens=4096), CPU._replace(rows="all")]),
)
def test_every_row_has_its_place_in_one_pass_within_the_limits(rows, length, held, batch_size, shapes):
    passes = list(shapes.passes(rows, length=length, held=held, batch_size=batch_size))
    assert [row for some, _ in passes for row in some] == rows
    for some, full in passes:
        assert full == some + [some[0]] * (len(full) - len(some))
        assert len(full) <= batch_size
        assert len(full) == 1 or len(full) * length <= shapes.tokens
        assert shapes.rows == "any" or len(full) == 1 or len(full) * (length + held) <= shapes.tokens
    counts = {len(full) for _, full in passes}
    assert len(counts) <= (1 if shapes.rows == "all" else 2)  # whole passes, and the last
    assert shapes.rows != "few" or counts == {*map(few, counts)}
    assert shapes.rows != "any" or all(some == full for some, full in passes)


def test_a_list_is_filled_up_piece_by_piece():
    assert list(filled([4, 5, 6], 2)) == [([4, 5], [4, 5]), ([6], [6, 6])]


def test_a_pass_takes_at_most_half_of_the_free_memory_between_two_bounds():
    assert [tokens_that_fit(free, 100) for free in (0, 10**6, 4 * 10**6, 6 * 10**6, 10**8)] == [
        4096,
        4096,
        16384,
        16384,
        65536,
    ]
    per_token = token_bytes(TWIST, 2)
    assert 2 * (2 * 2 * 24 * 2048) < per_token < 2 * (2 * 2 * 24 * 2048) * 2  # mostly keys and values, twice
    gib = 1 << 30
    assert [tokens_that_fit(size * gib, per_token) for size in (12, 20, 76, 135)] == [8192, 16384, 65536, 65536]


def test_a_gpu_is_asked_for_its_memory_and_a_cpu_for_nothing(monkeypatch):
    model = SimpleNamespace(device=torch.device("cpu"), config=TWIST, dtype=torch.bfloat16)
    assert shapes_of(model) == CPU
    assert shapes_of(model, cpu=GPU) == GPU
    model.device = torch.device("cuda", 0)
    per_token = token_bytes(TWIST, 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20_000 * per_token, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30_000 * per_token)  # 10,000 of it in use
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10_000 * per_token)
    assert shapes_of(model, cpu=CPU) == GPU._replace(tokens=16384)


def test_on_a_cpu_the_shapes_are_those_it_always_had():
    assert CPU == (1, 8, 0, 4096, "any")

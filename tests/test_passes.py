"""What passes leave out, and how rows are shared out among them, changes no result."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import LlamaConfig, OPTConfig, Trainer

from alignslm.lm.checkpoint import UnitLM, disable_dropout, save_lm
from alignslm.lm.reward import with_reward_head
from alignslm.training import pass_memory, preference, trainer_setup
from alignslm.training.kto import train_offline
from alignslm.training.next_unit import NextUnitCollator, continue_training
from alignslm.training.pass_memory import GpuMemoryError, fit_to_memory, pass_bytes, rows_that_fit
from alignslm.training.passes import ignores_right_padding, lean_passes, sort_steps, width_step
from alignslm.training.preference import preference_arguments, train_preferences
from alignslm.training.reward import train_reward
from alignslm.training.trainer_setup import shared_arguments
from tests.test_kto import KTO
from tests.test_packing import mixture_of_experts
from tests.test_reward import CONFIG as REWARD
from tests.test_training import COUNTING, NEXT_UNIT, TRAINER, pairs, shake_adapter, trainer_for
from tests.tiny_lm import CONTRACT, CPU, VOCABULARY, tiny_lm, tiny_model
from tests.tiny_states import STATES, tiny_by_name


def step_of(family, work, *, dtype=torch.float32, multiple_of=None, autocast=False, masks=True):
    """Take a step and an evaluation; return loss, gradients, figures and what the model was given."""
    lm = UnitLM(tiny_model(family, vocab_size=23).to(dtype), VOCABULARY, CONTRACT, family)
    disable_dropout(lm.model)
    name = "bfloat16" if dtype is torch.bfloat16 else "float32"
    config = TRAINER.model_copy(update={"autocast": name})
    trainer = trainer_for(lm, pairs(8), config, work, multiple_of=multiple_of)
    shake_adapter(trainer.model)
    model = trainer.accelerator.prepare_model(trainer.model)
    given = []
    look = lm.model.model.register_forward_pre_hook(lambda _, __, kwargs: given.append(kwargs), with_kwargs=True)
    trainer.create_optimizer_and_scheduler(num_training_steps=1)
    trainer.current_gradient_accumulation_steps = 1
    with lean_passes(model, autocast=autocast, masks=masks):
        rows = [trainer.train_dataset[row] for row in range(8)]
        loss = float(trainer.training_step(model, trainer.data_collator(rows)))
        figures = trainer.evaluate()
    look.remove()
    assert not model._forward_pre_hooks
    grads = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    assert {grad.dtype for grad in grads} == {torch.float32}
    return loss, torch.cat(grads), {name: figures[name] for name in figures if "/" in name or "loss" in name}, given


def forced(arguments, **options):
    for name, value in options.items():
        setattr(arguments, name, value)
    return arguments


@pytest.mark.parametrize("family", ["llama", "opt", "qwen2"])
def test_without_casts_a_step_in_autocast_has_the_same_bits(tmp_path, family):
    found = [step_of(family, tmp_path, dtype=torch.bfloat16, autocast=autocast) for autocast in (False, True)]
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]
    assert float(found[0][1].abs().max()) > 1e-2


def test_adapted_layers_read_what_they_are_given_in_a_pass_of_training_alone(tmp_path):
    """Sampling in the middle of training reads the model below the adapter, without autocast: it needs the casts."""
    lm = UnitLM(tiny_model("llama", vocab_size=23).to(torch.bfloat16), VOCABULARY, CONTRACT, "llama")
    trainer = trainer_for(lm, pairs(8), TRAINER.model_copy(update={"autocast": "bfloat16"}), tmp_path)
    model, ids = trainer.accelerator.prepare_model(trainer.model), torch.tensor([[4, 5, 6]])
    layer, seen = model.get_base_model().model.layers[0].mlp.up_proj, []
    layer.lora_A["default"].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    with lean_passes(model, autocast=True, masks=True):
        model(ids)
        lm.model(ids)
        with pytest.raises(IndexError):
            model(ids + 99)
        lm.model(ids)
    model(ids)
    assert seen == [torch.bfloat16, *[torch.float32] * 3]


@pytest.mark.parametrize("family", ["llama", "opt", "mistral"])
def test_rows_padded_to_one_width_and_without_a_mask_give_the_same_loss_and_gradient(tmp_path, family):
    plain, wide = step_of(family, tmp_path), step_of(family, tmp_path, multiple_of=32, masks=False)
    assert wide[0] == pytest.approx(plain[0], rel=1e-5)
    assert torch.allclose(wide[1], plain[1], rtol=1e-3, atol=1e-5 * float(plain[1].abs().max()))
    assert wide[2] == pytest.approx(plain[2], rel=1e-4, abs=1e-5)
    assert {(kwargs["input_ids"].shape[1], kwargs["attention_mask"]) for kwargs in wide[3]} == {(32, None)}
    assert all(kwargs["input_ids"].shape[1] < 32 and kwargs["attention_mask"].min() == 0 for kwargs in plain[3])


def test_a_mask_stays_where_padding_would_count():
    for family in STATES:
        assert not ignores_right_padding(tiny_by_name(family, vocab_size=23)), family
    assert not ignores_right_padding(mixture_of_experts())
    for family in ("llama", "opt", "qwen2", "mistral"):
        assert ignores_right_padding(tiny_model(family, vocab_size=23))


@pytest.mark.parametrize(("positions", "step"), [(2048, 32), (1000, 8), (33, 1), (None, 32)])
def test_widths_never_exceed_the_positions_of_a_model(positions, step):
    assert width_step(SimpleNamespace(max_position_embeddings=positions), gpu=True) == step
    assert width_step(SimpleNamespace(max_position_embeddings=positions), gpu=False) == 1
    batch = NextUnitCollator(0, multiple_of=step)([{"ids": [1, 5, 6]}, {"ids": [1]}])
    plain = NextUnitCollator(0)([{"ids": [1, 5, 6]}, {"ids": [1]}])
    assert {tuple(part.shape) for part in batch.values()} == {(2, -(-3 // step) * step)}
    for name, filler in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        assert torch.equal(batch[name][:, :3], plain[name])
        assert (batch[name][:, 3:] == filler).all()


def loader_of(lengths, arguments, rank):
    """Return what transformers and accelerate make of row numbers for one of several processes."""
    plain = DataLoader(range(len(lengths)), batch_size=arguments.train_batch_size, shuffle=True, collate_fn=list)
    options = {"num_processes": arguments.world_size, "process_index": rank, "use_seedable_sampler": True}
    return sort_steps(prepare_data_loader(plain, **options, data_seed=7), arguments, lambda: lengths)


def whole_batches(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_a_step_has_the_rows_that_it_has_unsorted(lengths, micro, passes, world, epoch):
    """Rows of one length are not sorted, nor steps of one pass. A run that goes on has the rest of the batches."""
    arguments = SimpleNamespace(train_batch_size=micro, gradient_accumulation_steps=passes, world_size=world)
    rest = whole_batches(skip_first_batches(loader_of(lengths, arguments, 0), 1), epoch)
    assert rest == whole_batches(loader_of(lengths, arguments, 0), epoch)[1:]

    def steps(sizes):
        shards = [whole_batches(loader_of(sizes, arguments, rank), epoch) for rank in range(world)]
        assert len({len(shard) for shard in shards}) == 1
        return [[shard[at : at + passes] for shard in shards] for at in range(0, len(shards[0]), passes)]

    def flat(step):  # of processes, of passes, of rows
        return [row for at in range(len(step[0])) for share in step for row in share[at]]

    plain, found = steps([1] * len(lengths)), steps(lengths)
    assert [sorted(flat(step)) for step in found] == [sorted(flat(step)) for step in plain]
    for step, before in zip(found, plain, strict=True):
        sizes = [lengths[row] for row in flat(step)]
        assert sizes == sorted(sizes, reverse=True) if passes > 1 else step == before
    seen = [row for step in plain for row in flat(step)]
    drawn = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(7 + epoch)).tolist()
    assert seen[: len(lengths)] == drawn
    assert len(seen) - len(lengths) < micro * world if world > 1 else len(seen) == len(lengths)


@pytest.mark.parametrize("train", ["pairs", "units"])
def test_the_trainer_sorts_the_rows_of_a_step_and_no_others(tmp_path, train, monkeypatch):
    """Steps of sorted passes have the rows of steps of one pass; a resumed run ends in the same bytes."""
    seen, killed = {}, []

    def watched(trainer, model, inputs, *args, **kwargs):
        seen.setdefault(trainer.state.global_step, []).append(inputs["input_ids"].tolist())
        if trainer.state.global_step == killed[0]:
            raise KeyboardInterrupt
        return whole_step(trainer, model, inputs, *args, **kwargs)

    whole_step = Trainer.training_step
    monkeypatch.setattr(Trainer, "training_step", watched)
    found = {}
    for name, micro, step in (("one", None, None), ("four", 1, None), ("cut", 1, 7), ("cut", 1, None)):
        seen.clear()
        killed[:] = [step]
        try:
            weights = weights_of(train, micro, tmp_path / name)
        except KeyboardInterrupt:
            continue
        found[name] = ({step: list(rows) for step, rows in seen.items()}, weights)
    assert max(len({len(rows[0]) for rows in passes}) for passes in found["four"][0].values()) > 1
    assert list(found["cut"][0]) == [6, 7, 8, 9, 10, 11]
    assert all(torch.equal(weight, found["cut"][1][name]) for name, weight in found["four"][1].items())
    assert all(torch.allclose(weight, found["four"][1][name], atol=2e-4) for name, weight in found["one"][1].items())
    for step, passes in found["four"][0].items():
        widths = [len(rows[0]) for rows in passes]
        assert widths == sorted(widths, reverse=True)
        one = found["one"][0][step][0]
        assert sorted(stripped(rows) for rows in passes) == sorted(
            stripped([one[row] for row in range(number, len(one), len(passes))]) for number in range(len(passes))
        )


def stripped(rows):
    return [[token for token in row if token != VOCABULARY.pad_id] for row in rows]


def weights_of(train, micro, work):
    """Train 12 steps of 4 rows, 3 to 4 an epoch, saved every 3; return the adapter."""
    if train == "pairs":
        config = TRAINER.model_copy(update={"micro_batch_size": micro, "max_steps": 12, "num_evals": 4})
        lm = tiny_lm()
        train_preferences(config, lm, pairs(17), warmup_steps=0, seed=3, batch_size=8, work=work)
    else:
        few = {"micro_batch_size": micro, "max_steps": 12, "batch_size": 4, "warmup_steps": 0}
        lm = tiny_lm()
        rows = [row[: 2 + number % 7] for number, row in enumerate(COUNTING[:13])]
        continue_training(NEXT_UNIT.model_copy(update=few), lm, rows, seed=0, work=work)
    return {name: weight.clone() for name, weight in lm.model.state_dict().items() if "lora" in name}


LLAMA_7B = LlamaConfig(vocab_size=503)  # its other sizes are those of a configuration without any
OPT_1B = OPTConfig(vocab_size=503, hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32)
MEASURED = [(OPT_1B, 2.63, 0.45, {8: 10.8, 16: 18, 32: 34, 64: 64}), (LLAMA_7B, 13.0, 1.3, {8: 38.3, 16: 62})]


@pytest.mark.parametrize(("config", "weights", "adapter", "peaks"), MEASURED)
def test_memory_of_a_pass_is_estimated_from_above_and_not_far(config, weights, adapter, peaks):
    """GB on an H200, with pairs of a prompt of at most 74 units and sides of at most 150, in bfloat16."""
    for rows, peak in peaks.items():
        found = weights + adapter + rows * pass_bytes(config, sequences=2, length=225, itemsize=2) / 1e9
        assert peak < found < 1.6 * peak


@given(st.integers(1, 200), st.integers(1, 10**6), st.integers(0, 10**8), st.integers(1, 3))
def test_as_many_rows_are_taken_as_fit_and_divide_the_batch(rows, size, free, least):
    found = rows_that_fit(rows, size, free, least=least)
    divisors = [number for number in range(1, rows + 1) if rows % number == 0 and number >= min(least, rows)]
    assert found in divisors
    assert found * size <= free or found == min(divisors)
    assert not any(number * size <= free for number in divisors if number > found)


def arguments_of(work, *, cpu=False, **changed):
    config = TRAINER.model_copy(update={"batch_size": 12} | changed)
    made = preference_arguments(config, num_pairs=24, warmup_steps=0, seed=0, work=work, device=CPU)
    return forced(made, use_cpu=cpu)


def test_rows_a_pass_follow_from_free_memory_and_a_resumed_run_keeps_them(tmp_path, monkeypatch):
    model = tiny_lm().model
    row = pass_bytes(model.config, sequences=2, length=32, itemsize=4)

    def fitted(free, **options):
        monkeypatch.setattr(pass_memory, "free_bytes", lambda _: free * row / pass_memory.USABLE)
        arguments = arguments_of(tmp_path, **options)
        step = fit_to_memory(
            arguments, model, [9, 31, 7], micro_batch_size=options.get("micro_batch_size"), sequences=2
        )
        assert arguments.per_device_eval_batch_size == arguments.per_device_train_batch_size
        return (
            step,
            arguments.pad_to_multiple_of,
            arguments.per_device_train_batch_size,
            arguments.gradient_accumulation_steps,
        )

    for free, found in ((5.5, (32, 32, 4, 3)), (100, (32, 32, 12, 1)), (0.1, (32, 32, 1, 12))):
        (tmp_path / pass_memory.RECORD).unlink(missing_ok=True)
        assert fitted(free) == found
    assert fitted(0.1, micro_batch_size=6) == (32, 32, 6, 2)
    assert fitted(0.1, cpu=True) == (1, None, 12, 1)
    assert fitted(100) == (32, 32, 1, 12)  # as noted
    (tmp_path / pass_memory.RECORD).write_text('{"rows": 5, "least": 1}')
    assert fitted(100) == (32, 32, 4, 3)
    assert fitted(100) == (32, 32, 4, 3)


def test_training_is_where_the_model_is_whatever_gpus_there_are(tmp_path, monkeypatch):
    """Trainers would take one that they see, though execution.yaml says cpu."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    here, there = (shared_arguments(tmp_path, seed=0, device=torch.device(kind)) for kind in ("cpu", "cuda"))
    assert (here["use_cpu"], here["dataloader_pin_memory"]) == (True, False)
    assert (there["use_cpu"], there["dataloader_pin_memory"]) == (False, True)


@pytest.mark.parametrize(("rows_of_room", "processes", "taken"), [(100, 1, 12), (5.5, 1, 4), (12.1, 2, 6), (0.1, 1, 1)])
def test_on_a_cpu_a_pass_holds_what_half_of_its_memory_does(tmp_path, monkeypatch, rows_of_room, processes, taken):
    model = tiny_lm().model
    row = pass_bytes(model.config, sequences=2, length=31, itemsize=4, plain=True)
    monkeypatch.setattr(pass_memory, "host_memory", lambda: 2 * rows_of_room * row)
    arguments = arguments_of(tmp_path, cpu=True)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert fit_to_memory(arguments, model, [9, 31, 7], micro_batch_size=None, sequences=2) == 1
    assert arguments.per_device_train_batch_size == arguments.per_device_eval_batch_size == taken
    assert arguments.gradient_accumulation_steps == 12 // taken
    assert not list(tmp_path.glob(pass_memory.RECORD))


def test_plain_attention_is_counted_by_pairs_of_positions():
    model = tiny_lm().model.config
    lean, plain = (pass_bytes(model, sequences=1, length=50, itemsize=4, plain=each) for each in (False, True))
    assert plain - lean == 3 * model.num_attention_heads * model.num_hidden_layers * 50 * 50 * 4


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Let training on this CPU do what it does on a GPU with room for 160 tokens of the tiny model a pass."""
    for module in (preference, trainer_setup):
        made = module.shared_arguments
        monkeypatch.setattr(module, "shared_arguments", lambda *a, made=made, **o: made(*a, **o) | {"use_cpu": False})
    room = pass_bytes(tiny_lm().model.config, sequences=1, length=160, itemsize=4)
    monkeypatch.setattr(pass_memory, "free_bytes", lambda _: room / pass_memory.USABLE)


def trained(name, work, device="cpu"):
    lm = tiny_lm()
    lm.model.to(device)
    if name == "units":
        model, _ = continue_training(NEXT_UNIT.model_copy(update={"max_steps": 3}), lm, COUNTING, seed=0, work=work)
    elif name == "reward":
        save_lm(lm.model, VOCABULARY, CONTRACT, work.with_suffix(".base"))
        few = REWARD.model_copy(update={"max_steps": 3, "num_evals": 1, "batch_size": 4})
        headed = with_reward_head(work.with_suffix(".base"), device=device)
        model, _, _ = train_reward(few, headed, pairs(24), seed=3, batch_size=8, work=work)
    else:
        changed = {"packed": {"pack_pairs": True}}.get(name, {}) | {"max_steps": 3, "num_evals": 1}
        config = (KTO if name == "kto" else TRAINER).model_copy(update=changed)
        model, _, _ = train_offline(config, lm, pairs(24), warmup_steps=0, seed=3, batch_size=8, work=work)
    return {weight_name: weight.clone() for weight_name, weight in model.state_dict().items() if "lora" in weight_name}


@pytest.mark.parametrize("name", ["pairs", "packed", "kto", "reward", "units"])
def test_training_as_on_a_gpu_ends_where_plain_training_does(tmp_path, request, name):
    plain = trained(name, tmp_path / "plain")
    request.getfixturevalue("as_on_a_gpu")
    given = []
    with pytest.MonkeyPatch.context() as patch:
        whole = Trainer.training_step

        def look(_model, args, kwargs, _found):
            given.append({"input_ids": args[0]} | kwargs if args else kwargs)

        def watched(trainer, model, inputs, *args, **kwargs):
            base = model.get_base_model().model
            with base.register_forward_hook(look, with_kwargs=True):
                return whole(trainer, model, inputs, *args, **kwargs)

        patch.setattr(Trainer, "training_step", watched)
        found = trained(name, tmp_path / "gpu")
    assert {kwargs["input_ids"].shape[1] for kwargs in given} == {32}
    if name != "packed":
        assert {kwargs["attention_mask"] for kwargs in given} == {None}
    assert {len(kwargs["input_ids"]) for kwargs in given} == ({2} if name == "packed" else {4})
    assert all(torch.allclose(weight, found[key], atol=2e-4) for key, weight in plain.items())


@contextlib.contextmanager
def room_for(rows, monkeypatch):
    """Let a pass of more rows fail as on a GPU without memory."""
    whole = Trainer.training_step

    def limited(trainer, model, inputs, *args, **kwargs):
        def refuse(_model, _args, given):
            if len(given["input_ids"]) > 2 * rows:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        with model.get_base_model().model.register_forward_pre_hook(refuse, with_kwargs=True):
            return whole(trainer, model, inputs, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", limited)
        yield


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_run_that_memory_was_too_small_for_goes_on_with_half_the_rows(tmp_path, monkeypatch):
    """Rows of pairs are two sequences; the whole batch of 4 was chosen."""
    monkeypatch.setattr(pass_memory, "free_bytes", lambda _: 1e12)
    plain = trained("pairs", tmp_path / "plain")
    with room_for(1, monkeypatch):
        with pytest.raises(GpuMemoryError, match=r"4 rows needs more memory .* at most 2 at a time"):
            trained("pairs", tmp_path / "short")
        with pytest.raises(GpuMemoryError, match=r"2 rows needs more memory .* at most 1 at a time"):
            trained("pairs", tmp_path / "short")
        found = trained("pairs", tmp_path / "short")
    assert all(torch.allclose(weight, found[key], atol=2e-4) for key, weight in plain.items())
    with room_for(0, monkeypatch), pytest.raises(GpuMemoryError, match=r"1 row needs .* a GPU with more memory"):
        trained("pairs", tmp_path / "short")


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_given_size_of_passes_that_memory_is_too_small_for_is_named(tmp_path, monkeypatch):
    config = TRAINER.model_copy(update={"micro_batch_size": 4, "max_steps": 3, "num_evals": 1})
    with room_for(2, monkeypatch), pytest.raises(GpuMemoryError, match="Set micro_batch_size to 2 or less"):
        train_offline(config, tiny_lm(), pairs(24), warmup_steps=0, seed=3, batch_size=8, work=tmp_path)

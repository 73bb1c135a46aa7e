"""Times of stages on several GPUs: of steps timed on one, or of rates that were measured or assumed (docs/scaling.md).

Measured rates are of an H200 with an earlier version of this package, with shapes of attention new to the process.
"""

from typing import NamedTuple

from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment
from alignslm.config.hubert import HubertEncoderConfig
from alignslm.config.llm_judges import CausalLMJudgeConfig
from alignslm.config.models import PreferenceTrainerConfig, RewardTrainerConfig
from alignslm.config.unit_hifigan import UnitHiFiGANConfig
from alignslm.config.whisper import WhisperASRConfig
from alignslm.pipeline import Stage
from alignslm.plan.memory import PUBLISHED, Shape, lm_shape, shape_of
from alignslm.plan.work import REPLY_TOKENS, amounts_of, lengths_of, seconds_of
from alignslm.plan.workload import RUNS_PER_UNIT, Workload

ONE_PROCESS = {"corpus", "vocoder", "asr"}  # kinds of stages that fit or speak in one
SHARED_BATCHES = {"base", "train", "reward"}
PRODUCTS = 738e12  # bfloat16 FLOP/s of an H200, the lower of two measurements
SMALLEST, BETWEEN, LARGEST = 3e8, 3e9, 1e10  # parameters
ROWS, UNITS = 255, 150  # of the measured sampling: rows at once, and units of a continuation at most
DRAWN_S = {"twist-1.3b": 9.62, "twist-7b": 10.2}  # to draw them
TRAINED = {"twist-1.3b": {8: 0.07, 16: 0.13, 32: 0.19, 64: 0.24}, "twist-7b": {8: 0.22, 16: 0.25}}  # share of PRODUCTS
VOCODER_X = 787  # seconds of speech a second
ENCODER_X, WHISPER_CLIPS_S = 1500, 20  # assumed: as fast as speech lasts; clips a second
READ_SHARE, STEP_S = 0.46, 12.6 / UNITS  # of a judge as large as twist-7b: sBLIMP's passes; `generate` at ROWS replies


class Rate(NamedTuple):
    """Seconds of one step on one GPU, and whether they were measured, at this size and on this kind of work."""

    seconds: float
    measured: bool


class StageTime(NamedTuple):
    """Seconds of one stage on the `gpus` that share it; `measured`: from measured rates alone."""

    seconds: float
    gpus: int
    measured: bool


def shared(stage: str, seconds: float, execution: Execution, gpus: int, *, measured: bool) -> StageTime:
    """Divide one GPU's seconds of a stage by how many of `gpus` compute it, as if scaling were perfect."""
    kind, copies = stage.partition("@")[0], execution.replicas
    wanted = execution.num_processes if kind in SHARED_BATCHES else gpus if copies == "auto" else copies
    used = 1 if kind in ONE_PROCESS else max(1, min(wanted, gpus))
    return StageTime(seconds / used, used, measured)


def gpu_times(
    experiment: Experiment, execution: Execution, volume: Workload, stages: list[Stage], gpus: int
) -> dict[str, StageTime]:
    """Return the time of each stage whose steps have a rate."""
    found: dict[str, StageTime] = {}
    processes = max(1, min(execution.num_processes, gpus))
    for stage, amounts in amounts_of(experiment, stages).items():
        rates = {step: _rate(experiment, volume, step, processes) for step, count in amounts.items() if count}
        seconds = seconds_of(amounts, {step: rate and rate.seconds for step, rate in rates.items()})
        if seconds is not None:
            measured = all(rate.measured for rate in rates.values() if rate)
            found[stage] = shared(stage, seconds, execution, gpus, measured=measured)
    return found


def _rate(experiment: Experiment, volume: Workload, step: str, processes: int) -> Rate | None:
    """Return the rate of a step; None if there is none for its kind or size of model. `processes` train together."""
    rate: Rate | None = None
    match step:
        case "encode" if isinstance(experiment.encoder, HubertEncoderConfig):
            rate = Rate(1 / ENCODER_X, measured=False)
        case "synthesize" if isinstance(experiment.vocoder, UnitHiFiGANConfig):
            rate = Rate(1 / VOCODER_X, measured=True)
        case "transcribe" if isinstance(experiment.asr, WhisperASRConfig):
            rate = Rate(1 / WHISPER_CLIPS_S, measured=False)
        case "judge" | "heldout_judge":
            rate = _judge(experiment, volume, step)
        case "draw" if (lm := lm_shape(experiment)) and (name := _nearest(lm)):
            units = experiment.params.sampling.max_new_units
            rate = Rate(DRAWN_S[name] / ROWS * units / UNITS, measured=_is(lm, name) and units == UNITS)
        case _ if step.startswith("train "):
            rate = _train(experiment, step.removeprefix("train "), processes)
    return rate


def _nearest(shape: Shape) -> str | None:
    """Return the measured model whose rates a shape is taken to have, None for one much smaller or larger."""
    if not SMALLEST <= shape.parameters <= LARGEST:
        return None
    return "twist-1.3b" if shape.parameters < BETWEEN else "twist-7b"


def _is(shape: Shape, name: str) -> bool:
    return shape[:5] == PUBLISHED[name][:5]  # whatever its vocabulary


def _judge(experiment: Experiment, volume: Workload, key: str) -> Rate | None:
    judge = getattr(experiment, key)
    shape = shape_of(judge.weights) if isinstance(judge, CausalLMJudgeConfig) else None
    asked = next(asked for asked in volume.asked if asked.key == key)
    if shape is None or not asked.requests or not _nearest(shape):
        return None
    read = asked.read_tokens / asked.requests * 2 * shape.parameters / (READ_SHARE * PRODUCTS)
    return Rate(read + min(REPLY_TOKENS, asked.written_tokens // asked.requests) * STEP_S / ROWS, measured=False)


def _train(experiment: Experiment, trainer: str, processes: int) -> Rate | None:
    """Return the rate of a row, of an adapter: forward, and backward to the activations.

    A pass whose rows follow from free memory is taken to be the largest that was measured, of what a process has.
    """
    trained, params = experiment.checkpoints | experiment.reward_models, experiment.params
    config = next(
        trained[n] for n, one in (params.checkpoints | params.reward_models).items() if one.trainer == trainer
    )
    shape = lm_shape(experiment)
    if shape is None or (name := _nearest(shape)) is None:
        return None
    shares, given = TRAINED[name], config.micro_batch_size
    held = given or config.batch_size // processes
    rows = max((size for size in shares if size <= held), default=min(shares))
    known = rows == held if given else rows <= held
    sizes = lengths_of(experiment)
    pairs = False
    if isinstance(config, PreferenceTrainerConfig):
        pairs = not config.unpaired and config.loss_weights.keys() != {"sft"}  # which reads one side
    sequences = 2 if pairs or isinstance(config, RewardTrainerConfig) else 1
    units = round(sizes.prompt_s * experiment.encoder.frame_rate_hz / RUNS_PER_UNIT) + sizes.units
    flop = 4 * shape.parameters * sequences * units
    return Rate(flop / (shares[rows] * PRODUCTS), measured=pairs and _is(shape, name) and known)

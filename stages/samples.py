"""Continue the evaluation prompts with one system, speak and transcribe: what the judges will hear about.

Judges are asked in the next stage, so that another judge costs no sampling.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from alignslm import tables
from alignslm.asr import Recogniser, load_asr
from alignslm.asr.prompts import transcribe_recorded_of
from alignslm.asr.rows import transcribe
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment, Params
from alignslm.config.loading import load_execution, load_experiment
from alignslm.engine import pool_of
from alignslm.engine.work import Once, WithModel, agreed, once
from alignslm.progress import stage
from alignslm.prompts import true_continuations
from alignslm.provenance import UnitContract
from alignslm.shards import map_shards, map_table, map_tasks, work_folder
from alignslm.vocoder import load_vocoder
from alignslm.vocoder.rows import speak
from stages import layout


def _is_corpus(system: str, params: Params) -> bool:
    return system in params.controls and params.controls[system].source == "corpus"


def _drawing(
    system: str, params: Params, execution: Execution, contract: UnitContract
) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return what draws for a control or a round; a control may lower the temperature or be the corpus itself."""
    if _is_corpus(system, params):
        return true_continuations
    from alignslm.lm.checkpoint import load_lm  # seconds to import, and not every system needs it
    from alignslm.lm.rows import draw_continuations

    source = layout.checkpoint(params.checkpoint_of(system))
    lm = agreed(once(load_lm, source, device=execution.device), contract, mine=source, theirs=layout.PROMPTS)
    control = params.controls.get(system)
    scale = control.temperature_scale if control else 1.0
    update = {"draws": params.evaluation.draws, "temperature": scale * params.sampling.temperature}
    sampling, seed = params.sampling.model_copy(update=update), params.seeds.evaluation
    draw = partial(
        draw_continuations, sampling=sampling, seed=seed, purpose="evaluation", batch_rows=execution.rows_at_once
    )
    return WithModel(lm, draw)


def _work(system: str, experiment: Experiment) -> AbstractContextManager[Path]:
    params = experiment.params
    values = {
        "sampling": params.sampling,
        "evaluation": params.evaluation,
        "seed": params.seeds.evaluation,
        **({"control": params.controls[system]} if system in params.controls else {}),
        "vocoder": experiment.vocoder,
        "asr": experiment.asr,
    }
    inputs = [layout.PROMPTS, layout.checkpoint(params.checkpoint_of(system)), layout.VOCODER, layout.ASR]
    inputs += [layout.UTTERANCES] if _is_corpus(system, params) else []
    return work_folder(f"samples-{system}", script=__file__, params=values, inputs=inputs)


def _hear_recordings(
    system: str, prompts: pl.DataFrame, recogniser: Once[Recogniser], execution: Execution, work: Path
) -> None:
    """Transcribe the true continuations as recorded: how far the recogniser errs where no vocoder is to blame."""
    known, rows = prompts.filter(pl.col("continuation_text").is_not_null()), execution.shard_rows
    heard = map_tasks(
        tables.parts(layout.UTTERANCES),
        WithModel(recogniser, partial(transcribe_recorded_of, prompts=known, side="continuation", shard_rows=rows)),
        folder=work / "recorded",
        pool=pool_of(execution),
        label=f"samples@{system} recorded",
    )
    tables.write(pl.concat(heard), tables.TRANSCRIPTS, layout.sample(system) / "recorded.parquet")


def _make(system: str, prompts: pl.DataFrame, experiment: Experiment, execution: Execution, work: Path) -> int:
    """Draw, speak and transcribe; return how many continuations there are."""
    folder, label = layout.sample(system), f"samples@{system}"
    contract = tables.contract_of(tables.PROMPTS, layout.PROMPTS)
    drawing = work / ("strict" if execution.strict else "batched")
    rows, pool = execution.shard_rows, pool_of(execution)
    draw = _drawing(system, experiment.params, execution, contract)
    elsewhere = pool if isinstance(draw, WithModel) else None
    made = map_shards(prompts, draw, folder=drawing, label=f"{label} drawn", shard_rows=rows, pool=elsewhere)
    drawn = tables.arrange(pl.concat(made), tables.CONTINUATIONS)
    tables.write(drawn, tables.CONTINUATIONS, folder / "continuations.parquet", contract)
    loaded = once(load_vocoder, experiment.vocoder, layout.VOCODER, device=execution.device)
    speaking = WithModel(agreed(loaded, contract, mine=layout.VOCODER, theirs=layout.PROMPTS), speak)
    spoken = map_shards(drawn, speaking, folder=work / "spoken", label=f"{label} spoken", shard_rows=rows, pool=pool)
    tables.write_shards(spoken, tables.SPEECH, folder / "speech", contract)
    recogniser = once(load_asr, experiment.asr, layout.ASR, device=execution.device)
    heard = map_table(
        tables.SPEECH,
        folder / "speech",
        WithModel(recogniser, transcribe),
        folder=work / "heard",
        label=f"{label} heard",
        shard_rows=rows,
        pool=pool,
    )
    tables.write(pl.concat(heard), tables.TRANSCRIPTS, folder / "transcripts.parquet")
    if _is_corpus(system, experiment.params):
        _hear_recordings(system, prompts, recogniser, execution, work)
    return len(drawn)


def main(system: Annotated[str, typer.Argument(help="a control or a round of params.yaml")]) -> None:
    """Run the stage for one system."""
    with stage(f"samples@{system}") as log:
        experiment, execution = load_experiment(), load_execution()
        split = experiment.params.evaluation.split
        prompts = tables.read(tables.PROMPTS, layout.PROMPTS).filter(pl.col("split") == split)
        with _work(system, experiment) as work:
            drawn = _make(system, prompts, experiment, execution, work)
        log.rows(inputs={"prompts": len(prompts)}, outputs={"continuations": drawn})


if __name__ == "__main__":
    typer.run(main)

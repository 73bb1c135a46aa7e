"""The model card: use, units, method, results with intervals, data, limits, reproduction, citation."""

import json
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from huggingface_hub import ModelCardData
from safetensors import safe_open

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import preference_trainer
from alignslm.config.models import LlamaScratch, has_preference_term
from alignslm.lm.checkpoint import CONTRACT_FILE, VOCABULARY_FILE
from alignslm.prompts import read_prompts
from alignslm.provenance import UnitContract
from alignslm.publishing import facts, sources
from alignslm.publishing.card_results import results_told
from alignslm.publishing.cards import TAGS, Published, render
from alignslm.publishing.citations import citations
from alignslm.publishing.model import hub_name_of_start
from alignslm.publishing.results import curriculum, eval_results
from alignslm.report.inputs import TrainingLog
from alignslm.report.metrics import Report
from alignslm.units import UnitVocabulary

CONTRACT_WORDS = {
    "encoder": "encoder", "revision": "its revision", "layer": "layer", "sample_rate_hz": "sample rate (Hz)",
    "frame_rate_hz": "units a second, before repeats are collapsed", "padding": "padding of the sound",
    "num_units": "number of units", "deduplicated": "repeats collapsed", "codebook_sha256": "codebook (sha256)",
}  # fmt: skip
SHOWN_UNITS = 60


def model_card(published: Published, report: Report) -> bytes:
    """Return README.md of a model repository."""
    values = {
        **_names(published),
        **_use(published),
        **_meaning(published),
        **_method(published),
        **results_told(published, report),
        **_data(published),
    }
    return render("model_card.md", _metadata(published, report), **values)


def _metadata(published: Published, report: Report) -> ModelCardData:
    experiment, config = published.experiment, published.config
    base = getattr(getattr(experiment.lm, "weights", None), "repo", None)
    return ModelCardData(
        language=config.language,
        license=config.model.licence if config.model else None,
        library_name="transformers",
        pipeline_tag="audio-to-audio",
        tags=TAGS,
        base_model=base,
        datasets=[published.dataset_repo] if published.dataset_repo else None,
        model_name=title_of(published),
        eval_results=eval_results(report, experiment, published.round),
    )


def title_of(published: Published) -> str:
    """Return the model's name."""
    params = published.experiment.params
    return f"{params.lm} aligned on {params.corpus}, round {published.round}"


def _names(published: Published) -> dict[str, object]:
    repo = published.model_repo or ""
    config = published.config
    assert config.model is not None  # noqa: S101 (there is no model card without a model)
    return {
        "title": title_of(published),
        "repo": repo,
        "folder": repo.partition("/")[2],
        "tag": published.tag,
        "round": published.round,
        "dataset_repo": published.dataset_repo,
        "code": config.code,
        "licence": config.model.licence,
        "adapter": config.model.adapter,
        "start": config.model.start,
        "speech": config.model.speech,
        "toy": facts.is_toy(published.experiment),
        "hub_start": hub_name_of_start(published.experiment, published.round),
    }


def _use(published: Published) -> dict[str, object]:
    folder, params = Artifacts(published.artifacts).checkpoint(published.round), published.experiment.params
    vocabulary = UnitVocabulary.model_validate_json((folder / VOCABULARY_FILE).read_text())
    prompt, end_s = _example(published)
    begin = [] if vocabulary.bos_id is None else [str(vocabulary.bos_id)]
    end = "" if vocabulary.eos_id is None else ", or fewer where the model ends by itself"
    base = published.experiment.params.aligned[published.round].init_from
    return {
        "parameters": _parameters(folder),
        "dtype": json.loads((folder / "config.json").read_text())["dtype"],
        "offset": vocabulary.offset,
        "num_units": vocabulary.num_units,
        "specials": _specials(vocabulary),
        "prompt_units": textwrap.fill(str(prompt)[1:-1], 96, subsequent_indent=" " * 9),
        "prompt_seconds": f"{end_s:.1f}",
        "split": params.evaluation.split,
        "ids_expression": f"[{', '.join([*begin, f'*(unit + {vocabulary.offset} for unit in units)'])}]",
        "end_told": end,
        "adapter_base": _adapter_base(published, base),
        "speech_weights": _elsewhere(published),
    }


def _example(published: Published) -> tuple[list[int], float]:
    """Return the units of the first prompt of the split that is reported on, and where it ends in seconds."""
    prompts = read_prompts(*Artifacts(published.artifacts).prompt_tables).filter(
        pl.col("split") == published.experiment.params.evaluation.split
    )
    row = prompts.row(0, named=True)
    return row["units"][:SHOWN_UNITS], row["end_s"]


def _parameters(folder: Path) -> str:
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                total += math.prod(weights.get_slice(name).get_shape())
    return f"{total / 1e9:.2f} B" if total >= 1e9 else f"{total / 1e6:.2f} M"


def _specials(vocabulary: UnitVocabulary) -> str:
    named = {"sequences begin with": vocabulary.bos_id, "end with": vocabulary.eos_id, "padding is": vocabulary.pad_id}
    return ", ".join(f"{what} {token}" if token is not None else f"{what} nothing" for what, token in named.items())


def _adapter_base(published: Published, base: str) -> str:
    config = published.config.model
    if config and config.start:
        return "the model in `start/`"
    hub = hub_name_of_start(published.experiment, published.round)
    return f"`{hub}`" if hub else f"checkpoint `{base}` of this experiment, which is not published here"


def _elsewhere(published: Published) -> str:
    """Say which speech models are fetched from their own publishers when they are used."""
    experiment = published.experiment
    named = {key: getattr(getattr(experiment, key), "weights", None) for key in ("encoder", "vocoder", "asr")}
    fetched = [f"{key} from {sources.told(source)}" for key, source in named.items() if source is not None]
    return f" (large weights are fetched from their publishers: {'; '.join(fetched)})" if fetched else ""


def _meaning(published: Published) -> dict[str, object]:
    folder = Artifacts(published.artifacts).checkpoint(published.round)
    contract = UnitContract.model_validate_json((folder / CONTRACT_FILE).read_text())
    rows = [(words, _value(getattr(contract, key))) for key, words in CONTRACT_WORDS.items()]
    return {"units": facts.units_told(contract), "contract": rows}


def _value(value: str | float | None) -> str:
    """Return a field of the unit contract as a cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


def _method(published: Published) -> dict[str, object]:
    experiment, name = published.experiment, published.round
    params, trainer = experiment.params, preference_trainer(experiment, name)
    chain = curriculum(experiment, name)
    log = TrainingLog.model_validate_json(Artifacts(published.artifacts).training(name).read_text())
    return {
        "aligned": "preference-optimised" if has_preference_term(trainer) else "fine-tuned on its best samples",
        "base": sources.base_model(experiment),
        "curriculum": [params.aligned[chain[0]].init_from, *chain],
        "judge": facts.judge_told(experiment),
        "prompts_cut": facts.CUTS[params.prompts.cut],
        "max_s": f"{params.prompts.max_s:g}",
        "draws": params.sampling.draws,
        "temperature": f"{params.sampling.temperature:g}",
        "top_p": f"{params.sampling.top_p:g}",
        "max_units": params.sampling.max_units,
        "encoder": sources.choice_of(params.encoder, experiment.encoder),
        "vocoder": sources.choice_of(params.vocoder, experiment.vocoder),
        "asr": sources.choice_of(params.asr, experiment.asr),
        "utility": facts.utility_told(experiment),
        "selection": facts.selection_told(experiment, name),
        "lora_r": trainer.lora.r,
        "lora_alpha": f"{trainer.lora.alpha:g}",
        "loss": loss_told({str(loss): weight for loss, weight in trainer.losses.items()}),
        "beta": f"{trainer.beta:g}",
        "learning_rate": f"{trainer.learning_rate:g}",
        "batch_size": trainer.batch_size,
        "rounds": facts.round_rows(experiment, published.artifacts, chain),
        "steps": log.steps,
        "best": log.best,
    }


def loss_told(losses: dict[str, float]) -> str:
    """Return the training objective in words."""
    known = {"sigmoid": "DPO", "sft": "negative log-likelihood of the chosen continuation"}
    terms = [("" if weight == 1 else f"{weight:g} × ") + known.get(name, name) for name, weight in losses.items()]
    return " + ".join(terms)


def _data(published: Published) -> dict[str, object]:
    experiment, lineage = published.experiment, published.lineage
    own = (
        f"It belongs to the code at {code_url(published)}."
        if published.config.code
        else (
            f"The code is alignslm {lineage.packages['alignslm']}"
            + (f", commit `{lineage.commit}`." if lineage.commit else ".")
        )
    )
    return {
        "training_data": sources.training_data(experiment),
        "base_terms": "" if isinstance(experiment.lm, LlamaScratch) else " Its licence binds this model too.",
        "limits": [*facts.shared_limits(experiment), *_limits(published)],
        "code_told": own,
        "stages": f"checkpoint@{published.round} report",
        "lineage": facts.lineage_rows(lineage, experiment, published.artifacts, published.round),
        "citations": citations(experiment),
    }


def code_url(published: Published) -> str:
    """Return where the code is, at its commit where one is known."""
    commit = published.lineage.commit
    return f"{published.config.code}" + (f" at commit `{commit}`" if commit else "")


def _limits(published: Published) -> Iterator[str]:
    experiment = published.experiment
    seconds, units = experiment.params.prompts.max_s, experiment.params.sampling.max_units
    yield (
        f"It was trained to continue prompts of up to {seconds:g} s by up to {units} units of speech like its corpus; "
        "nothing else was tried."
    )
    yield "It was not tested for offensive, biased or false content; it is no assistant and knows no facts."
    if not facts.is_toy(experiment):
        yield "Speech it continues keeps no speaker's consent: do not use it to imitate or deceive people."

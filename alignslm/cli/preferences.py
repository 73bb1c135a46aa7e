"""`alignslm import-preferences`: check preferences made elsewhere, and add them to the experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.artifacts import Artifacts
from alignslm.cli.options import Root, separated
from alignslm.cli.presets import format_change
from alignslm.config.document import Plain
from alignslm.config.experiment import BASE, Experiment
from alignslm.config.loading import load_config, load_execution, load_experiment
from alignslm.config.preferences import AnyPreferences, UnitPreferences
from alignslm.config.presets import Change, set_values
from alignslm.config.pretrained_lm import TrainingUnits
from alignslm.config.problems import ConfigError
from alignslm.config.speech import EncoderConfig
from alignslm.storage import write_text
from alignslm.terminal import Console

if TYPE_CHECKING:
    from alignslm.config.experiment import Experiment


def import_preferences(
    source: Annotated[str, typer.Argument(help="A .jsonl or .parquet file, a folder of them, or a Hub dataset's id.")],
    root: Root = Path(),
    *,
    name: Annotated[str, typer.Option("--name", help="Name of the config and of the checkpoint.")],
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="The encoder that made the units, if the rows contain units.")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit of a Hub dataset.")] = "main",
    train: Annotated[
        str | None, typer.Option("--train", help="Pattern of the training files; default: by their names.")
    ] = None,
    valid: Annotated[
        str | None, typer.Option("--valid", help="Pattern of the validation files; default: by their names.")
    ] = None,
    valid_fraction: Annotated[
        float, typer.Option("--valid-fraction", help="Fraction of prompts to validate on if no file does.")
    ] = 0.1,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns of prompt, chosen and rejected, comma-separated.")
    ] = None,
    no_append_eos: Annotated[
        bool, typer.Option("--no-append-eos", help="Chosen and rejected were truncated: do not train on an end.")
    ] = False,
    repeats: Annotated[
        str, typer.Option("--repeats", help="If a unit repeats: error, dedup, or keep (the model sampled it).")
    ] = "error",
    strip_prompt: Annotated[
        bool, typer.Option("--strip-prompt", help="Cut the prompt off chosen and rejected, which repeat it.")
    ] = False,
) -> None:
    """Add preferences made elsewhere to the experiment: (prompt, chosen, rejected), as speech or as units.

    Every row is read and checked; if any is wrong, all problems are listed and nothing is written. Otherwise the config
    is written to experiments/preferences/NAME.yaml with its source pinned, and params.yaml gets a checkpoint that is
    trained on it from the base model, and is evaluated. Neither sampling nor a judge is needed.

    [bold]alignslm import-preferences slprl/SpokenSwag --name spoken-swag[/]

    [bold]alignslm import-preferences pairs.jsonl --name mine --encoder mhubert-25hz-km500[/]
    """
    from alignslm.preferences.files import fetch
    from alignslm.preferences.infer_config import ImportOptions, describe, pinned, yaml_of
    from alignslm.preferences.pairing import PreferenceError

    match separated(columns):
        case None:
            sides = None
        case [prompt, chosen, rejected]:
            sides = prompt, chosen, rejected
        case _:
            raise typer.BadParameter("name three columns: prompt,chosen,rejected", param_hint="--columns")
    asked = ImportOptions(
        source, revision, train, valid, sides, valid_fraction, not no_append_eos, repeats, strip_prompt, None
    )
    experiment = load_experiment(root)
    file = root / "experiments" / "preferences" / f"{name}.yaml"
    if file.exists():
        raise PreferenceError(f"{file} already exists; choose another --name, or remove it first")
    config = describe(asked._replace(units=trained_on(encoder, experiment, root)), root)
    folder, identity = fetch(config, root)
    config = pinned(config, identity)
    found = check_rows(config, folder, experiment, rows=load_execution(root).shard_size)
    write_text(file, yaml_of(config))
    try:
        listed = _into_params(name, experiment, root)
    except ConfigError:
        file.unlink()
        raise
    console = Console(highlight=False, soft_wrap=True)
    for line in [found, f"wrote {file}", *(f"{'.'.join(c.key)}: {format_change(c)}" for c in listed)]:
        console.print(Text(line))
    console.print(Text(f"train on them and evaluate: dvc repro eval@{name}"))


def check_rows(config: AnyPreferences, folder: Path, experiment: Experiment, *, rows: int) -> str:
    """Read every row as the stage will, without encoding speech. Return counts, or raise with all problems."""
    import polars as pl

    from alignslm.listing import problems_of
    from alignslm.preferences.files import find_slices
    from alignslm.preferences.pairing import make_pairs, refuse
    from alignslm.preferences.reading import read_slice
    from alignslm.progress import track

    slices, problems = find_slices(config, folder, rows=rows)
    total = sum(place.rows for place in slices)
    refuse(problems, rows=total)
    num_units = experiment.encoder.num_units
    read = pl.concat(
        read_slice(config, place, num_units=num_units, encoder=None)
        for place in track(slices, total=len(slices), label="checking")
    )
    refuse(problems_of(read), rows=total)
    if not isinstance(config, UnitPreferences):
        return f"{total} rows of speech at {config.sample_rate_hz} Hz, all readable"
    _, counted = make_pairs(read, config, source="")
    excluded = ", ".join(f"{count} excluded: {reason}" for reason, count in counted.left_out.items() if count)
    counts = f"{total} rows: {counted.train_pairs} training and {counted.valid_pairs} validation pairs"
    return f"{counts}; {excluded}" if excluded else counts


def trained_on(choice: str | None, experiment: Experiment, root: Path) -> TrainingUnits | None:
    """Return what is known about an encoder's units, from its config and, if the experiment uses it, its artifact."""
    if choice is None:
        return None
    from alignslm.encoder import load_encoder

    config = load_config("encoder", choice, EncoderConfig, root)
    made = Artifacts(root / "artifacts").encoder
    own = choice == experiment.params.encoder and made.is_dir()
    contract = load_encoder(config, made, device="cpu").contract if own else None
    return TrainingUnits(
        num_units=config.num_units,
        sample_rate_hz=config.sample_rate_hz,
        frame_rate_hz=config.frame_rate_hz,
        layer=getattr(config, "layer", None),
        deduplicated=True,
        revision=contract.revision if contract else None,
        codebook_sha256=contract.codebook_sha256 if contract else None,
        codebook_file_sha256=getattr(getattr(config, "codebook", None), "sha256", None),
    )


def _into_params(name: str, experiment: Experiment, root: Path) -> list[Change]:
    """Add the preferences, a checkpoint trained on them from the base model, and the system that evaluates it."""
    nouns = {"imported_preferences", "checkpoints", "systems"}
    params = experiment.params.model_dump(mode="json", include=nouns, exclude_unset=True)
    trainer = experiment.params.checkpoints[list(experiment.params.rounds)[-1]].trainer
    checkpoint: dict[str, Plain] = {"init_from": BASE, "train_on": f"pairs/{name}", "trainer": trainer}
    values: dict[str, Plain] = {
        "imported_preferences": {**params["imported_preferences"], name: name},
        "checkpoints": {**params["checkpoints"], name: {**checkpoint, "warmup_steps": 0}},
        "systems": {**params["systems"], name: {"source": f"checkpoints/{name}"}},
    }
    return set_values(values, root, named=f"preferences {name}")

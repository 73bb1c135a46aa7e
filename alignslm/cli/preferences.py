"""`alignslm import-preferences`: read what others prefer, write it down as a choice, and put it into params.yaml."""

from pathlib import Path

import polars as pl
from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from alignslm.cli.presets import told_change
from alignslm.config.document import Plain, read_document
from alignslm.config.experiment import Experiment
from alignslm.config.faults import ConfigError, Fault, suggestion
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.preferences import AnyPreferences, UnitPreferences
from alignslm.config.presets import Change, set_values
from alignslm.config.pretrained_lm import TrainedOn
from alignslm.config.speech import EncoderConfig
from alignslm.config.validation import validate
from alignslm.encoder import load_encoder
from alignslm.listing import problems_of
from alignslm.preferences.describing import Asked, describe, pinned, yaml_of
from alignslm.preferences.files import fetch, find_slices
from alignslm.preferences.pairing import PreferenceError, make_pairs, refuse
from alignslm.preferences.reading import read_slice
from alignslm.progress import track
from alignslm.storage import write_text


def print_imported(asked: Asked, name: str, root: Path, *, units_of: str | None) -> None:
    """Check every row, write experiments/preferences/NAME.yaml, add it to params.yaml, say what was found."""
    experiment = load_experiment(root)
    file = root / "experiments" / "preferences" / f"{name}.yaml"
    if file.exists():
        raise PreferenceError(f"{file} is there already; choose another --name, or remove it first")
    config = describe(asked._replace(units=trained_on(units_of, experiment, root)), root)
    folder, identity = fetch(config, root)
    config = pinned(config, identity)
    found = check_rows(config, folder, experiment, rows=load_execution(root).shard_rows)
    write_text(file, yaml_of(config))
    try:
        listed = _into_params(name, experiment, root)
    except ConfigError:
        file.unlink()
        raise
    console = Console(highlight=False, soft_wrap=True)
    for line in [found, f"wrote {file}", *(f"{'.'.join(c.key)}: {told_change(c)}" for c in listed)]:
        console.print(Text(line))
    console.print(Text(f"train on them, and evaluate: dvc repro control_eval@{name}"))


def check_rows(config: AnyPreferences, folder: Path, experiment: Experiment, *, rows: int) -> str:
    """Read every row as the stage will, but encode no speech; return what is there, or raise with all faults."""
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
        return f"{total} rows of sound at {config.sample_rate_hz} Hz, all readable"
    _, account = make_pairs(read, config, source="")
    left = ", ".join(f"{count} left out: {reason}" for reason, count in account.left_out.items() if count)
    told = f"{total} rows: {account.train_pairs} training and {account.valid_pairs} validation pairs"
    return f"{told}; {left}" if left else told


def trained_on(choice: str | None, experiment: Experiment, root: Path) -> TrainedOn | None:
    """Return what is known of an encoder's units: from its choice, and its artifact if the experiment has it."""
    if choice is None:
        return None
    folder = root / "experiments" / "encoder"
    if not (folder / f"{choice}.yaml").is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise ConfigError([Fault(folder.as_posix(), None, choice, "no such encoder" + suggestion(choice, known))])
    document = read_document(folder / f"{choice}.yaml")
    config = document if isinstance(document, list) else validate(document, TypeAdapter(EncoderConfig), EncoderConfig)
    if isinstance(config, list):
        raise ConfigError(config)
    made = root / "artifacts" / "encoder"
    own = choice == experiment.params.encoder and made.is_dir()
    contract = load_encoder(config, made, device="cpu").contract if own else None
    return TrainedOn(
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
    """Add the preferences to `given`, and a control that evaluates the checkpoint trained on them."""
    params = experiment.params.model_dump(mode="json", include={"given", "controls"})
    control: dict[str, Plain] = {"checkpoint": name, "source": "model", "temperature_scale": 1.0}
    values: dict[str, Plain] = {
        "given": {**params["given"], name: name},
        "controls": {**params["controls"], name: control},
    }
    return set_values(values, root, named=f"preferences {name}")

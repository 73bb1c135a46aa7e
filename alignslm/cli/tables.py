"""`alignslm show`: look into a table of artifacts/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from alignslm.cli.options import AnyRoot, require_experiment, separated
from alignslm.cli.terminal import format_bytes, grid
from alignslm.config.problems import closest_match
from alignslm.terminal import Console

if TYPE_CHECKING:
    import polars as pl

LIST_SHOWN = 6
CONTENT = {
    "utterances": "recordings of the corpus, with texts",
    "texts": "clean texts for judges",
    "units": "units and durations per utterance",
    "prompts": "prompts and their ground truth",
    "continuations": "sampled units with log-probabilities",
    "speech": "synthesized audio",
    "transcripts": "ASR transcripts and confidence",
    "scores": "judge score, perplexity, auto-BLEU",
    "replies": "the judge's replies as received",
    "pairs": "chosen and rejected units",
    "labels": "desirable and undesirable continuations (KTO)",
    "skipped_prompts": "prompts without a pair, and why",
    "rewards": "rewards of an online run, per sample",
    "unit_rewards": "rewards of judged continuations by a reward model",
    "guard": "measures of saved steps, and which is kept",
    "items": "benchmark items: units and audio",
    "item_scores": "log-probabilities of benchmark items",
    "judged": "metrics per evaluated continuation",
    "mos": "predicted MOS per clip",
    "clips": "clips of a listening study",
    "ratings": "ratings of a listening study",
}


def show(
    table: Annotated[
        list[str] | None,
        typer.Argument(help="A path, or words of one below artifacts/, such as `pairs r1`; default: list the tables."),
    ] = None,
    root: AnyRoot = Path(),
    *,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="Rows to print.")] = 10,
    columns: Annotated[str | None, typer.Option("--columns", "-c", help="Columns to print, comma-separated.")] = None,
    where: Annotated[str | None, typer.Option("--where", "-w", help="Rows to keep, as an SQL condition.")] = None,
) -> None:
    """Print rows of a table: lists are abbreviated, audio is shown as its size, the unit contract is in the title.

    If the columns do not fit the terminal side by side, each row is printed as a block of lines. Without a table, all
    tables are listed with their rows and content.

    [bold]alignslm show[/]

    [bold]alignslm show pairs r1[/]

    [bold]alignslm show scores r1 -c continuation_id,judge_score -w "judge_score > 4 AND num_words < 8"[/]

    [bold]alignslm show artifacts/units.parquet --rows 3[/]
    """
    from alignslm.integrity import reading
    from alignslm.tables import parts

    if not table:
        list_tables(root)
        return
    path = find_table(table, root)
    files = parts(path)
    with reading(path, compare=path.is_file()):
        head = title(files[0])
        frame, kept = select(files, rows=rows, columns=separated(columns), where=where)
        total = count_rows(files)
    console = Console(highlight=False)
    console.print(Text(f"{path}: {head}, {total} rows" + (f", {kept} kept" if where else "")), soft_wrap=True)
    whole = frame_grid(frame)
    if Measurement.get(console, console.options.update(max_width=10**6), whole).maximum <= console.width:
        console.print(whole)
    else:
        print_blocks(frame, console)


def list_tables(root: Path) -> None:
    """Print every table: the words that `show` finds it by, its rows and its content. TableError if there is none."""
    import pyarrow.parquet as pq

    from alignslm.tables import TableError, parts

    folder = require_experiment(root) / "artifacts"
    rows = []
    for path in every_table(folder):
        files = parts(path)
        name = (pq.read_schema(files[0]).metadata or {}).get(b"alignslm.table", b"").decode()
        rows.append((" ".join(words_of(path, folder)), str(count_rows(files)), CONTENT.get(name, "")))
    if not rows:
        raise TableError(f"no table in {folder} yet: run `dvc repro`.")
    Console(highlight=False).print(grid(("alignslm show", "rows", "content"), rows, numbers=[1]))


def count_rows(files: Sequence[Path]) -> int:
    """Return the rows of parquet files, from their metadata."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in files)


def words_of(path: Path, folder: Path) -> tuple[str, ...]:
    """Return the parts of a table's path below `folder`, without its suffix."""
    return path.relative_to(folder).with_suffix("").parts


def find_table(words: Sequence[str], root: Path) -> Path:
    """Return the path, or the table in root/artifacts with these words as its path, else the only one with every word.

    Raises TableError if no table or several match, naming them.
    """
    if len(words) == 1 and (given := Path(words[0])).exists() and (given.is_file() or any(given.glob("part-*"))):
        return given
    require_experiment(root)
    from alignslm.tables import TableError

    tables = every_table(root / "artifacts")
    exact = [path for path in tables if words_of(path, root / "artifacts") == tuple(words)]
    fits = exact or [path for path in tables if all(word in {*path.parts, path.stem} for word in words)]
    if len(fits) == 1:
        return fits[0]
    wanted, listed = " ".join(words), "".join(f"\n  {path}" for path in fits or tables)
    if fits:
        raise TableError(f"{wanted!r} matches {len(fits)} tables; add a word of the path:{listed}")
    guess = closest_match(words[0], {part for path in tables for part in (*path.parts, path.stem)})
    hint = f"; did you mean {guess!r}?" if guess else "."
    found = f" There are:{listed}" if tables else " There are no tables yet. Run `dvc repro`."
    raise TableError(f"no table in {root / 'artifacts'} matches {wanted!r}{hint}{found}")


def every_table(folder: Path) -> list[Path]:
    """Return parquet files, and folders of parts, sorted."""
    files = [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
    return sorted({path.parent if path.name.startswith("part-") else path for path in files})


def select(
    files: Sequence[Path], *, rows: int, columns: list[str] | None, where: str | None
) -> tuple[pl.DataFrame, int]:
    """Return the first rows that `where` keeps, and how many it keeps. TableError for an unknown column or bad SQL."""
    import polars as pl

    from alignslm.tables import TableError

    try:
        lazy = pl.scan_parquet(list(files))
        known = lazy.collect_schema().names()
        if unknown := [name for name in columns or [] if name not in known]:
            raise TableError(f"{files[0]} has no column {unknown[0]!r}; columns: {', '.join(known)}")
        lazy = lazy if where is None else lazy.filter(pl.sql_expr(where))
        kept = lazy.select(pl.len()).collect().item()
        return lazy.select(columns or known).head(rows).collect(), kept
    except pl.exceptions.PolarsError as error:
        raise TableError(f"{files[0]} cannot be shown (--where {where!r}): {str(error).splitlines()[0]}") from error


def title(file: Path) -> str:
    """Return the table's name and version, and the encoder of its unit contract, from the file's metadata."""
    import pyarrow.parquet as pq

    from alignslm.provenance import UnitContract

    metadata = {key.decode(): value.decode() for key, value in (pq.read_schema(file).metadata or {}).items()}
    if "alignslm.table" not in metadata:
        return "not a table of alignslm"
    title = f"{metadata['alignslm.table']} v{metadata['alignslm.version']}"
    if "alignslm.unit_contract" not in metadata:
        return title
    contract = UnitContract.model_validate_json(metadata["alignslm.unit_contract"])
    codebook = f"{contract.num_units} units at {contract.frame_rate_hz:g} Hz, codebook {contract.codebook_sha256[:8]}"
    return f"{title}, {contract.encoder} ({codebook})"


def frame_grid(frame: pl.DataFrame) -> Grid:
    """Return the frame as a grid of texts, one line per row if that fits."""
    numbers = [place for place, kind in enumerate(frame.dtypes) if kind.is_numeric()]
    rows = ([cell(value) for value in row] for row in frame.iter_rows())
    return grid(frame.columns, rows, numbers=numbers)


def print_blocks(frame: pl.DataFrame, console: Console) -> None:
    """Print one block per row, one line per column: for tables with columns that do not fit side by side."""
    width = max(map(len, frame.columns), default=0)
    for number, row in enumerate(frame.iter_rows()):
        console.print(Text(f"row {number}", style="bold"))
        for name, value in zip(frame.columns, row, strict=True):
            console.print(Text.assemble(("  " + name.ljust(width), "cyan"), "  ", cell(value)), soft_wrap=True)


def cell(value: object) -> str:
    """Return one value as text: `3 17 5 ... (45)` for a list, `31.0 kB` for audio or bytes, `-` for null."""
    match value:
        case None:
            return "-"
        case {"bytes": None}:
            return "no audio"
        case {"bytes": data} | (bytes() as data):
            return format_bytes(len(data))
        case list():
            shown = " ".join(str(item) for item in value[:LIST_SHOWN])
            return f"{shown} ... ({len(value)})" if len(value) > LIST_SHOWN else shown
        case float():
            return f"{value:.4g}"
    return str(value)

"""sWUGGY and sBLIMP as ZeroSpeech releases them: TASK/SPLIT/*.wav with random names, described in gold.csv."""

from pathlib import Path

import polars as pl

from alignslm.benchmarks import BenchmarkError
from alignslm.benchmarks.conventions import frequency_band
from alignslm.benchmarks.index import INDEX, resolve_folder
from alignslm.config.benchmarks import Sblimp, Swuggy
from alignslm.listing import Listing
from alignslm.user_errors import Problem

LEXICAL = ("filename", "id", "voice", "frequency", "word", "phones", "length", "correct")
SYNTACTIC = ("filename", "id", "voice", "type", "subtype", "transcription", "correct")


def find_slm21(config: Swuggy | Sblimp) -> Listing:
    """List the recordings of one task and split. Raises BenchmarkError if there is no gold.csv."""
    task = "lexical" if isinstance(config, Swuggy) else "syntactic"
    folder = _folder(resolve_folder(config.data), Path(task) / config.split)
    wavs = {file.stem for file in folder.glob("*.wav")}
    columns = LEXICAL if isinstance(config, Swuggy) else SYNTACTIC
    gold = _read_gold(folder / "gold.csv", columns, num_wavs=len(wavs))
    rows = _lexical(gold) if isinstance(config, Swuggy) else _syntactic(gold)
    listed = rows.with_columns(
        pl.col("filename").alias("item_id"),
        pl.when(_count("correct") == 1).then(pl.lit("positive")).otherwise(pl.lit("negative")).alias("polarity"),
        pl.format("{}.wav", "filename").alias("file"),
        *(pl.lit(None, INDEX[name]).alias(name) for name in ("row", "column", "context_file")),
    ).select(pl.col(name).cast(kind) for name, kind in INDEX.items())
    problems = [*_wrong_files(gold, wavs), *_wrong_values(gold), *_changing(rows)]
    return Listing(listed, folder, problems)


def _folder(root: Path, below: Path) -> Path:
    """Return the folder of a task and split, in `root` or in the one folder of it that an archive holds."""
    fits = [path for path in (root / below, *sorted(root.glob(f"*/{below}"))) if path.is_dir()]
    if len(fits) != 1:
        raise BenchmarkError(
            f"{root} has {len(fits)} folders {below}, expected one: this is not sLM21-dataset as released. Fetch it "
            "with `zrc datasets:pull sLM21-dataset` and let data.path name its folder."
        )
    return fits[0]


def _read_gold(path: Path, columns: tuple[str, ...], *, num_wavs: int) -> pl.DataFrame:
    """Read every value as text, so that the words "null" and "nan" stay words; `line` is its line in the file."""
    if not path.is_file():
        raise BenchmarkError(
            f"{path.parent} has {num_wavs} wav files but no gold.csv, so pairs are unknown: this is "
            "the zip of the 2021 challenge, which came without labels. Fetch the release that has them with "
            "`zrc datasets:pull sLM21-dataset`, or copy its index.json and gold.csv files into this one."
        )
    try:
        gold = pl.read_csv(
            path,
            infer_schema=False,
            row_index_name="line",
            row_index_offset=2,
        ).fill_null("")  # a null is an empty cell, and nothing else
    except pl.exceptions.PolarsError as error:
        raise BenchmarkError(f"{path} is not a table of comma-separated values: {error}") from error
    if absent := [name for name in columns if name not in gold.columns]:
        raise BenchmarkError(
            f"{path} has no column {', '.join(absent)}; it has {', '.join(gold.columns[1:])}. "
            "Fetch the release again with `zrc datasets:pull sLM21-dataset`."
        )
    return gold


def _count(column: str) -> pl.Expr:
    """Return a text column as whole numbers from 0, null for other texts."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    whole = number.is_finite() & (number >= 0) & (number == number.floor())
    return pl.when(whole).then(number).cast(pl.Int32, strict=False)


def _lexical(gold: pl.DataFrame) -> pl.DataFrame:
    return gold.with_columns(
        pl.col("id").alias("pair_id"),
        pl.lit(None, pl.String).alias("type"),
        pl.lit("").alias("subtype"),
        pl.when(pl.col("word") != "").then("word").otherwise("phones").alias("text"),
        _count("frequency").alias("frequency"),
        frequency_band(_count("frequency")).alias("band"),
        _count("length").alias("length"),
    )


def _syntactic(gold: pl.DataFrame) -> pl.DataFrame:
    return gold.with_columns(
        pl.format("{}/{}/{}", "type", "subtype", "id").alias("pair_id"),
        pl.col("transcription").alias("text"),
        *(pl.lit(None, INDEX[name]).alias(name) for name in ("frequency", "band", "length")),
    )


def _wrong_files(gold: pl.DataFrame, wavs: set[str]) -> list[Problem]:
    listed = gold["filename"]
    return [
        *(Problem("gold.csv names a file twice", name) for name in listed.filter(listed.is_duplicated()).unique()),
        *(Problem("gold.csv names a file that is not there", f"{name}.wav") for name in set(listed) - wavs),
        *(Problem("gold.csv does not name a file", f"{name}.wav") for name in wavs - set(listed)),
    ]


def _wrong_values(gold: pl.DataFrame) -> list[Problem]:
    faults = {"correct is neither 1 nor 0": _count("correct").is_in([0, 1]).fill_null(value=False).not_()}
    for name in {"id", "voice", "type", "subtype"} & set(gold.columns):
        faults[f"no {name}"] = pl.col(name) == ""
    for name in {"frequency", "length"} & set(gold.columns):
        faults[f"{name} is not a count"] = (pl.col(name) != "") & _count(name).is_null()
    return [
        Problem(kind, f"gold.csv line {line}")
        for kind, fault in sorted(faults.items())
        for line in gold.filter(fault)["line"]
    ]


def _changing(rows: pl.DataFrame) -> list[Problem]:
    """Return words with a frequency or length that depends on the voice: they would be in several bands."""
    words = rows.filter(_count("correct") == 1) if "word" in rows.columns else rows.head(0)
    several = words.group_by("pair_id").agg(pl.struct("frequency", "length").n_unique().alias("kinds"))
    changing = several.filter(pl.col("kinds") > 1)["pair_id"]
    return [Problem("frequency or length of a word differs between voices", f"id {pair_id}") for pair_id in changing]

"""What the commands of `alignslm listen` do and print."""

from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from alignslm.config.document import read_document
from alignslm.config.faults import ConfigError, Fault, suggestion
from alignslm.config.listening import ListeningStudy
from alignslm.config.validation import validate
from alignslm.listening.analysis import Analysis, Interval, analyse, automatic_scores, export, ratings_table
from alignslm.listening.storage import Ratings
from alignslm.listening.study import build_study, read_study
from alignslm.storage import write_text

DATABASE = "ratings.sqlite"
DASH = "–"


def load_study_choice(choice: str, root: Path = Path()) -> ListeningStudy:
    """Read experiments/listening/CHOICE.yaml. ConfigError lists its faults."""
    from pydantic import TypeAdapter

    folder = root / "experiments" / "listening"
    path = folder / f"{choice}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        message = f"no file {path.as_posix()}" + suggestion(choice, known, label="choices")
        raise ConfigError([Fault(path.as_posix(), None, "", message)])
    document = read_document(path)
    result = document if isinstance(document, list) else validate(document, TypeAdapter(ListeningStudy), ListeningStudy)
    if isinstance(result, list):
        raise ConfigError(result)
    return result


def print_built(choice: str, folder: Path, artifacts: Path, raters: int) -> None:
    """Build a study, invite raters and say what to do next."""
    config = load_study_choice(choice)
    study = build_study(config, artifacts, folder)
    ratings = Ratings(folder / DATABASE)
    ratings.invite(raters)
    ratings.close()
    names = config.names
    per_rater = len(study.prompts) * config.passes
    print(f"{folder}: {len(study.prompts)} prompts x {len(names)} systems and anchors, {per_rater} clips a rater")
    if study.lufs < config.loudness_lufs:
        print(f"every clip is at {study.lufs:.1f} LUFS instead of {config.loudness_lufs:g}: louder would clip a peak")
    if raters % len(names):
        print(f"{raters} raters are no multiple of {len(names)}: some clips will be heard once more than others")
    print(f"alignslm listen serve {folder}, and give every rater a link of: alignslm listen links {folder}")


def print_invited(folder: Path, raters: int) -> None:
    """Add raters to a study."""
    read_study(folder)
    ratings = Ratings(folder / DATABASE)
    added = ratings.invite(raters)
    ratings.close()
    print(f"invited {added[0].rater_id} to {added[-1].rater_id}; their links: alignslm listen links {folder}")


def print_links(folder: Path, base: str) -> None:
    """Print one line a rater: who, how far, which link."""
    study, _ = read_study(folder)
    ratings = Ratings.existing(folder / DATABASE)
    for rater in ratings.raters():
        done, due = len(ratings.stored(rater.rater_id)), len(study.trials(rater.number))
        print(f"{rater.rater_id}  {done}/{due}  {base.rstrip('/')}/r/{rater.token}")
    ratings.close()


def print_served(folder: Path, host: str, port: int) -> None:
    """Serve until interrupted."""
    from alignslm.listening.server import serve

    print(f"serving {folder} at http://{host}:{port}; links: alignslm listen links {folder}", flush=True)
    serve(folder, host=host, port=port)


def print_exported(folder: Path) -> None:
    """Export the ratings."""
    ratings = Ratings.existing(folder / DATABASE)
    frame = export(folder, ratings)
    ratings.close()
    print(f"{len(frame)} ratings of {frame['rater_id'].n_unique()} raters: {folder}/ratings.parquet and ratings.csv")


def print_analysis(folder: Path, artifacts: Path) -> None:
    """Analyse, write analysis.json and print it as tables."""
    study, _ = read_study(folder)
    ratings = Ratings.existing(folder / DATABASE)
    found = analyse(study, ratings.raters(), ratings_table(folder, ratings), automatic_scores(artifacts, study))
    ratings.close()
    write_text(folder / "analysis.json", found.model_dump_json(indent=2) + "\n")
    _show(found)


def _show(found: Analysis) -> None:
    console = Console(highlight=False)
    console.print(f"{found.ratings} ratings of {found.raters} raters ({found.raters_absent} have not begun)")
    console.print(_grid(
        ("system", "MMOS", "95 % interval", "ratings", "missing"),
        [(s.system, f"{s.mmos:.2f}", interval(s.ci95), str(s.n), str(s.n_missing)) for s in found.systems],
    ))  # fmt: skip
    console.print(_grid(
        ("difference", "", "95 % interval"),
        [(f"{d.system} {DASH} {d.against}", f"{d.delta:+.2f}", interval(d.ci95)) for d in found.differences],
    ))  # fmt: skip
    agreed = found.agreement
    console.print(f"Krippendorff's alpha {number(agreed.alpha)} {interval(agreed.ci95)} over {agreed.clips} clips")
    if found.correlations:
        console.print(_grid(
            ("automatic score", "Spearman", "95 %", "Pearson", "95 %", "across systems", "clips"),
            [
                (c.metric, number(c.spearman), interval(c.spearman_ci95), number(c.pearson), interval(c.pearson_ci95),
                 number(c.across_systems), str(c.n))
                for c in found.correlations
            ],
        ))  # fmt: skip


def _grid(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Grid:
    grid = Grid(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        grid.add_column(heading, justify="right" if place else "left")
    for row in rows:
        grid.add_row(*row)
    return grid


def number(value: float | None) -> str:
    """Return two decimals, or a dash."""
    return DASH if value is None else f"{value:.2f}"


def interval(ends: Interval | None) -> str:
    """Return [low, high], or a dash."""
    return DASH if ends is None else f"[{ends[0]:.2f}, {ends[1]:.2f}]"

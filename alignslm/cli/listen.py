"""Have people rate samples: build a blinded study, serve it, export and analyze the ratings."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignslm.cli.options import require_experiment
from alignslm.cli.terminal import grid
from alignslm.config.listening import ListeningTestConfig
from alignslm.config.loading import load_config
from alignslm.storage import write_text
from alignslm.terminal import Console

if TYPE_CHECKING:
    from alignslm.listening.analysis import Analysis
    from alignslm.statistics import Interval

DATABASE = "ratings.sqlite"
DASH = "–"
listen = typer.Typer(name="listen", help=__doc__, no_args_is_help=True, rich_markup_mode="rich", add_completion=False)
Folder = Annotated[Path, typer.Argument(help="The study's folder.")]
Artifacts = Annotated[Path, typer.Option("--artifacts", "-a", help="The experiment's artifacts.")]


@listen.command()
def build(
    config: Annotated[str, typer.Argument(help="A config of experiments/listening/, such as mmos.")],
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default: studies/CONFIG.")] = None,
    artifacts: Artifacts = Path("artifacts"),
    *,
    raters: Annotated[int, typer.Option("--raters", "-r", min=1, help="How many raters to invite.")],
) -> None:
    """Build a study from the experiment's samples, and invite raters.

    Each rater hears every prompt once per pass, each time continued by a different system. Invite a multiple of the
    number of systems and anchors, so that every clip is rated equally often.

    [bold]alignslm listen build mmos --raters 10[/]
    """
    from alignslm.listening.storage import Ratings
    from alignslm.listening.study import build_study

    require_experiment(Path())
    folder, study_config = folder or Path("studies") / config, load_config("listening", config, ListeningTestConfig)
    study = build_study(study_config, artifacts, folder)
    with closing(Ratings(folder / DATABASE)) as ratings:
        ratings.invite(raters)
    names, per_rater = study_config.names, len(study.prompts) * study_config.trials_per_prompt
    print(f"{folder}: {len(study.prompts)} prompts x {len(names)} systems and anchors, {per_rater} clips per rater")
    if study.lufs < study_config.loudness_lufs:
        wanted = f"{study_config.loudness_lufs:g}"
        print(f"every clip is at {study.lufs:.1f} LUFS instead of {wanted}: louder clips would clip at a peak")
    if raters % len(names):
        print(f"{raters} raters is not a multiple of {len(names)}: some clips get one rating more than others")
    print(f"serve it: alignslm listen serve {folder}; print the raters' links: alignslm listen links {folder}")


@listen.command()
def invite(
    folder: Folder, *, raters: Annotated[int, typer.Option("--raters", "-r", min=1, help="How many more.")]
) -> None:
    """Invite more raters to a study, also while it is being served."""
    from alignslm.listening.storage import Ratings
    from alignslm.listening.study import read_study

    read_study(folder)
    with closing(Ratings(folder / DATABASE)) as ratings:
        added = ratings.invite(raters)
    print(f"invited {added[0].rater_id} to {added[-1].rater_id}; their links: alignslm listen links {folder}")


@listen.command()
def links(
    folder: Folder,
    *,
    base: Annotated[str, typer.Option("--base", help="The server's address for raters.")] = "http://127.0.0.1:8000",
) -> None:
    """Print each rater's own link and progress."""
    from alignslm.listening.storage import Ratings
    from alignslm.listening.study import read_study

    study, _ = read_study(folder)
    with closing(Ratings.existing(folder / DATABASE)) as ratings:
        for rater in ratings.raters():
            done, due = len(ratings.stored(rater.rater_id)), len(study.trials(rater.number))
            print(f"{rater.rater_id}  {done}/{due}  {base.rstrip('/')}/r/{rater.token}")


@listen.command()
def serve(
    folder: Folder,
    *,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is open to phones on the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 8000,
) -> None:
    """Serve a study until interrupted. It can be stopped or killed and served again: no rating is lost."""
    from alignslm.listening.server import serve as serve_study

    serve_study(folder, host=host, port=port)


@listen.command()
def export(folder: Folder) -> None:
    """Write the ratings, with system names, to ratings.parquet and ratings.csv in the study's folder."""
    from alignslm.listening.analysis import export as export_ratings
    from alignslm.listening.storage import Ratings

    with closing(Ratings.existing(folder / DATABASE)) as ratings:
        frame = export_ratings(folder, ratings)
    print(f"{len(frame)} ratings of {frame['rater_id'].n_unique()} raters: {folder}/ratings.parquet and ratings.csv")


@listen.command()
def analyze(folder: Folder, artifacts: Artifacts = Path("artifacts")) -> None:
    """Print MMOS with intervals, rater agreement and correlations with automatic scores; write analysis.json.

    Intervals are 95 %, clustered by rater and prompt.
    """
    from alignslm.listening.analysis import analyse, automatic_scores, ratings_table
    from alignslm.listening.storage import Ratings
    from alignslm.listening.study import read_study

    study, _ = read_study(folder)
    with closing(Ratings.existing(folder / DATABASE)) as ratings:
        found = analyse(study, ratings.raters(), ratings_table(folder, ratings), automatic_scores(artifacts, study))
    write_text(folder / "analysis.json", found.model_dump_json(indent=2) + "\n")
    _print_analysis(found)


def _print_analysis(found: Analysis) -> None:
    from alignslm.report.formatting import probability
    from alignslm.statistics import MIN_CLUSTERS, TOO_FEW

    console = Console(highlight=False)
    console.print(f"{found.ratings} ratings of {found.raters} raters ({found.raters_absent} have not started)")
    console.print(grid(
        ("system", "MMOS", "95 % interval", "ratings", "missing"),
        [
            (s.system, number(s.mmos), interval(s.mmos, s.ci95, s.stderr), str(s.n), str(s.n_missing))
            for s in found.systems
        ],
    ))  # fmt: skip
    console.print(grid(
        ("difference", "", "95 % interval", "corrected p"),
        [
            (
                f"{d.system} {DASH} {d.against}",
                number(d.delta, "+"),
                interval(d.delta, d.ci95, d.stderr),
                probability(d.p_corrected),
            )
            for d in found.differences
        ],
    ))  # fmt: skip
    agreed = found.agreement
    console.print(
        f"Krippendorff's alpha {number(agreed.alpha)} {interval(agreed.alpha, agreed.ci95)} over {agreed.clips} clips"
    )
    if found.correlations:
        console.print(grid(
            ("automatic score", "Spearman", "95 % interval", "Pearson", "systems", "clips", "missing"),
            [
                (c.metric, number(c.spearman), interval(c.spearman, c.spearman_ci95), number(c.pearson),
                 number(c.across_systems), str(c.n), str(c.n_missing))
                for c in found.correlations
            ],
        ))  # fmt: skip
    else:
        console.print(
            "no automatic scores of these systems in eval/ and mos/ of the artifacts (`dvc repro`, `dvc pull`)"
        )
    console.print(
        f"{TOO_FEW}: an interval needs {MIN_CLUSTERS} raters and {MIN_CLUSTERS} prompts; all ratings together are of "
        f"{found.raters} raters and {found.prompts} prompts. {DASH}: cannot be computed."
    )


def number(value: float | None, sign: str = "") -> str:
    """Return two decimals, or a dash."""
    return DASH if value is None else f"{value:{sign}.2f}"


def interval(value: float | None, ends: Interval | None, stderr: float | None = None) -> str:
    """Return [low, high] of a value, or why there is none; a dash if there is no value."""
    from alignslm.statistics import ALL_EQUAL, TOO_FEW

    if ends is not None:
        return f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    return DASH if value is None else TOO_FEW if stderr is None else ALL_EQUAL

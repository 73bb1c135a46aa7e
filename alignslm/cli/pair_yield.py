"""`alignslm yield`: what pairs other thresholds, weights, judges or fewer continuations would have given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from alignslm.cli.options import AsJson, Plot, Root
from alignslm.cli.terminal import fitted, wide_console
from alignslm.config.loading import load_experiment

if TYPE_CHECKING:
    from alignslm.pairs.counterfactual import Mean
    from alignslm.report.yields import Answer, Row, Trade

DASH = "-"
EXPLAINED = (
    "{found.name}: {found.prompts:,} train prompts, {found.num_continuations} continuations each, "
    "{found.judge_calls:,} judge calls. prompts: those with a pair. margin, chosen, rejected: mean utilities of pairs. "
    "agreed: pairs whose chosen side {heldout} scores higher too ({found.judge}, where {heldout} is the judge), with "
    "its 95 % interval over prompts."
)
TRADED = (
    "The same number of judge calls, spent on N continuations of so many prompts: pairs to expect under the rules of "
    "params.yaml. best of N: what the best by utility scores, means over all choices of N. KL: at most so many nats "
    "from sampling, log N - (N - 1) / N."
)
UNASKED = "The held-out judge was not asked: it takes a server or a large model, or was not pulled (`dvc pull`)."


def pair_yield(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUES", help="Another value, or several: min_margin=0.5,1.")
    ] = None,
    root: Root = Path(),
    *,
    name: Annotated[str, typer.Option("--name", help="The preferences; default: the first of params.yaml.")] = "",
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Count the pairs that other rules would give, and how sure they are, from scores that exist.

    Nothing is sampled and no server is asked. KEY is min_chosen_score, max_rejected_score, min_margin, max_auto_bleu,
    num_continuations, selector, judge or weights.METRIC; values are as for [bold]alignslm sweep[/].

    [bold]alignslm yield[/]                                      the rules of params.yaml, and what N gives

    [bold]alignslm yield min_chosen_score=3,3.5 min_margin=0.5,1[/]    four other rules

    [bold]alignslm yield judge=ngram selector=quantiles --plot yield.svg[/]
    """
    from alignslm.report.yield_plot import draw
    from alignslm.report.yields import answer
    from alignslm.storage import write_text

    found = answer(root, load_experiment(root), name, _combinations(settings or []))
    if plot is not None:
        write_text(plot, draw(found))
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        _show(found)


def _combinations(settings: list[str]) -> list[tuple[str, ...]]:
    from alignslm.sweep.settings import combinations

    return [found.settings for found in combinations(settings)] if settings else []


def _show(found: Answer) -> None:
    console = wide_console()
    headings = ("", "pairs", "prompts", "margin", "agreed", "95 % interval", "chosen", "rejected")
    console.print(fitted(headings, map(_cells, found.rows), optional=2, width=console.width))
    heldout = found.heldout_judge or "the held-out judge"
    console.print(Text(EXPLAINED.format(found=found, heldout=heldout)))
    console.print()
    by_num = ("N", "prompts", "pairs", f"best of N: {found.judge}", heldout, "KL")
    console.print(fitted(by_num, map(_traded, found.trades), optional=1, width=console.width))
    console.print(Text(TRADED))
    if found.heldout_judge is None:
        console.print(Text(UNASKED))


def _cells(row: Row) -> list[str]:
    found = row.found
    agreed, ends = found.agreement.value, found.agreement.ci95
    return [
        "\n".join(row.settings) or "params.yaml",
        f"{found.pairs:,.0f}",
        f"{found.prompts_with_pairs:,.0f}",
        _number(found.margin),
        DASH if agreed is None else f"{100 * agreed:.1f} %",
        f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else DASH,
        _number(found.chosen),
        _number(found.rejected),
    ]


def _traded(trade: Trade) -> list[str]:
    return [
        str(trade.best.num_continuations),
        f"{trade.prompts:,.0f}",
        DASH if trade.pairs is None else f"{trade.pairs:,.0f}",
        _mean(trade.best.score),
        _mean(trade.best.heldout_score),
        f"{trade.best.kl:.2f}",
    ]


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def _mean(mean: Mean) -> str:
    ends = f" [{mean.ci95[0]:.2f}, {mean.ci95[1]:.2f}]" if mean.ci95 else ""
    return _number(mean.value) + ends

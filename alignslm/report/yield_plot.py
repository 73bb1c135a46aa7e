"""The plot of `alignslm yield`: best of N over its KL bound, and pairs over N, at the same judge calls."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from alignslm.pairs.counterfactual import Mean
from alignslm.report.drawing import HUES, drawing_style, svg_of
from alignslm.report.yields import Answer


def draw(found: Answer) -> str:
    """Return SVG text with two panels."""
    with drawing_style():
        figure = Figure(figsize=(8.6, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        left, right = figure.subplots(1, 2)
        best = [trade.best for trade in found.trades]
        at = [one.kl for one in best]
        _curve(left, at, [one.score for one in best], 0, f"{found.judge} (chooses)")
        if found.heldout_judge is not None:
            _curve(left, at, [one.heldout_score for one in best], 1, f"{found.heldout_judge} (held out)")
        left.set_xticks(at, [f"{one.kl:.2f}\nN={one.num_continuations}" for one in best])
        left.set(xlabel="KL bound of best-of-N (nats)", ylabel="mean score (1 to 5), 95 % interval")
        left.legend(loc="lower right")
        traded = [(trade.best.num_continuations, trade.pairs) for trade in found.trades if trade.pairs is not None]
        right.bar([str(num) for num, _ in traded], [pairs for _, pairs in traded], width=0.6, color=HUES[2])
        right.set(xlabel=f"continuations per prompt, {found.judge_calls} judge calls in all", ylabel="train pairs")
        right.grid(visible=False, axis="x")
        return svg_of(figure, "yield")


def _curve(axes: Axes, at: Sequence[float], means: Sequence[Mean], hue: int, label: str) -> None:
    for x, mean in zip(at, means, strict=True):
        if mean.ci95 is not None:
            axes.plot([x, x], mean.ci95, color=HUES[hue], linewidth=1.4)
    values = [math.nan if mean.value is None else mean.value for mean in means]
    axes.plot(at, values, "o-", color=HUES[hue], label=label)

"""How time and memory grow with the amount of work, as a figure."""

from collections.abc import Sequence
from pathlib import Path

from alignslm.storage import atomic_write
from tests.bench.harness import Result


def plot_scaling(results: Sequence[Result], file: Path) -> None:
    """Draw our path's median seconds and peak memory over the scale, a line a stage; linear time is a straight line.

    Both relative to the smallest scale. The file's ending chooses the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time, memory = figure.subplots(1, 2)
    for stage in dict.fromkeys(result.stage for result in results):
        rows = sorted((result for result in results if result.stage == stage), key=lambda result: result.scale)
        scales, ours = [row.scale for row in rows], [row.paths[0] for row in rows]
        time.plot(scales, [one.seconds.median / ours[0].seconds.median for one in ours], marker="o", label=stage)
        if all(one.peak_bytes is not None for one in ours):
            memory.plot(scales, [(one.peak_bytes or 0) / 1e6 for one in ours], marker="o", label=stage)
    scales = sorted({result.scale for result in results})
    time.plot(scales, [scale / scales[0] for scale in scales], color="black", linestyle=":", label="linear")
    time.set(xlabel="work", ylabel="time, relative", xticks=scales)
    memory.set(xlabel="work", ylabel="peak memory above the models, MB", xticks=scales)
    memory.set_ylim(bottom=0)
    time.legend(fontsize="small")
    with atomic_write(file) as partial:
        drawn = file.suffix.removeprefix(".")
        figure.savefig(partial, format=drawn, metadata={"Date": None} if drawn == "svg" else None)

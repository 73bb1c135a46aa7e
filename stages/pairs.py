"""Turn scores into preference pairs by weights, selector and the round's thresholds."""

from typing import Annotated

import typer

from alignslm import tables
from alignslm.config.loading import load_experiment
from alignslm.pairs.account import account
from alignslm.pairs.selection import select_pairs
from alignslm.progress import stage
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"pairs@{name}") as log:
        experiment = load_experiment()
        params = experiment.params
        source = layout.table("continuations", name)
        scores = tables.read(tables.SCORES, layout.table("scores", name))
        pairs, rejections = select_pairs(
            scores,
            tables.read(tables.CONTINUATIONS, source),
            tables.read(tables.PROMPTS, layout.PROMPTS),
            weights=params.weights,
            selector=experiment.selector,
            round=params.rounds[name],
            name=name,
        )
        tables.write(pairs, tables.PAIRS, layout.table("pairs", name), tables.contract_of(tables.CONTINUATIONS, source))
        tables.write(rejections, tables.REJECTIONS, layout.table("rejections", name))
        path = layout.account(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        books = account(pairs, rejections, scores, auto_bleu_max=params.rounds[name].auto_bleu_max)
        path.write_text(books.model_dump_json(indent=1) + "\n")
        log.rows(inputs={"prompts": pairs["prompt_id"].n_unique() + len(rejections)}, outputs={"pairs": len(pairs)})


if __name__ == "__main__":
    typer.run(main)

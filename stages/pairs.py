"""Turn scores into preference pairs by weights, selector and the round's thresholds."""

from typing import Annotated

import typer

from alignslm import tables
from alignslm.config.loading import load_experiment
from alignslm.pairs.account import Books
from alignslm.pairs.own import load_selector
from alignslm.pairs.streaming import Sources, stream_pairs
from alignslm.progress import stage
from alignslm.storage import write_text
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"pairs@{name}") as log:
        experiment = load_experiment()
        rules = experiment.params.rounds[name]
        sources = Sources(layout.table("scores", name), layout.table("continuations", name), layout.PROMPTS)
        contract = tables.contract_of(tables.CONTINUATIONS, sources.continuations)
        contract.require(
            tables.contract_of(tables.PROMPTS, sources.prompts),
            mine=str(sources.continuations),
            theirs=str(sources.prompts),
        )
        selector = load_selector(experiment.selector, code=layout.own_code(f"selector/{experiment.params.selector}"))
        books = Books(auto_bleu_max=rules.auto_bleu_max)
        with (
            tables.growing(tables.PAIRS, layout.table("pairs", name), contract) as pairs,
            tables.growing(tables.REJECTIONS, layout.table("rejections", name)) as rejections,
        ):
            for made in stream_pairs(
                sources, weights=experiment.params.weights, selector=selector, round=rules, name=name
            ):
                pairs.add(made.pairs)
                rejections.add(made.rejections)
                books.add(*made)
        account = books.close()
        write_text(layout.account(name), account.model_dump_json(indent=1) + "\n")
        prompts = account.train.prompts + account.valid.prompts
        log.rows(inputs={"prompts": prompts}, outputs={"pairs": pairs.rows})


if __name__ == "__main__":
    typer.run(main)

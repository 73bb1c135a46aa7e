"""Push a round's model and preference pairs to the Hub, or say that publishing is off; a receipt either way."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm.config.loading import load_experiment
from alignslm.config.publishing import published_rounds
from alignslm.progress import stage
from alignslm.publishing import unpublished, write_receipt
from stages import layout


def main(name: Annotated[str, typer.Argument(help="round, a key of params.yaml's rounds")]) -> None:
    """Run the stage for one round."""
    with stage(f"publish@{name}") as log:
        experiment = load_experiment()
        chosen = published_rounds(experiment.publish, list(experiment.params.rounds))
        if name not in chosen:
            receipt = unpublished(name, chosen)
        else:
            from alignslm.publishing.pushing import publish  # seconds to import, which nobody waits for when it is off

            receipt = publish(experiment, name, Path())
        write_receipt(receipt, layout.published(name))
        files = sum(len(pushed.files) for pushed in receipt.pushed.values())
        log.rows(inputs={"rounds": 1}, outputs={"repositories": len(receipt.pushed), "files": files})


if __name__ == "__main__":
    typer.run(main)

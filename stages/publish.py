"""Push a checkpoint and its preference pairs to the Hub, or say why not; a receipt either way."""

from pathlib import Path

from alignslm import integrity
from alignslm.artifacts import Artifacts
from alignslm.config.experiment import published_checkpoints
from alignslm.config.loading import load_experiment
from alignslm.pipeline import stage_named
from alignslm.progress import stage
from alignslm.publishing import unpublished, write_receipt
from stages.names import requested_name


def main(name: str) -> None:
    """Run the stage for one checkpoint."""
    with stage(f"publish@{name}") as log:
        experiment = load_experiment()
        if Path(".dvc").is_dir():
            integrity.keep_listings(stage_named(f"publish@{name}")[0].deps)
        chosen = published_checkpoints(experiment)
        if name not in chosen:
            receipt = unpublished(name, chosen)
        else:
            from alignslm.publishing.pushing import publish  # takes seconds to import, not needed if publishing is off

            receipt = publish(experiment, name, Path())
        write_receipt(receipt, Artifacts().published(name))
        files = sum(len(pushed.files) for pushed in receipt.pushed.values())
        log.rows(inputs={"checkpoints": 1}, outputs={"repositories": len(receipt.pushed), "files": files})


if __name__ == "__main__":
    main(requested_name())

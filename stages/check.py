"""Check params.yaml and all it names before anything else runs: what is at fault may also be the name of a path."""

from alignslm.artifacts import Artifacts
from alignslm.config.loading import load_experiment
from alignslm.progress import stage
from alignslm.storage import write_text


def main() -> None:
    """Run the stage."""
    with stage("check") as log:
        params = load_experiment().params
        write_text(Artifacts().checked, "params.yaml is valid\n")
        log.rows(inputs={"checkpoints": len(params.checkpoints), "systems": len(params.systems)}, outputs={})


if __name__ == "__main__":
    main()

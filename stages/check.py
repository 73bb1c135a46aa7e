"""Check params.yaml and its configs before anything else runs: even a path may be invalid.

Folders outside the repository are compared with their listings, because DVC does not track them.
"""

import os

from alignslm import integrity, outside
from alignslm.artifacts import Artifacts
from alignslm.config.loading import load_experiment
from alignslm.config.prerequisites import require_ready
from alignslm.progress import stage
from alignslm.storage import write_text


def main() -> None:
    """Run the stage."""
    artifacts = Artifacts()
    with stage("check") as log, integrity.stage("check", (), (str(artifacts.checked), str(artifacts.outside))):
        experiment = load_experiment()
        write_text(artifacts.checked, "params.yaml is valid\n")
        found = outside.compare(experiment)
        if found.absent and not artifacts.outside.exists() and "DVC_ROOT" in os.environ:
            integrity.fetch([str(artifacts.outside)])  # in a clone without `dvc pull`
            found = outside.compare(experiment)
        if found.absent:
            require_ready(experiment)  # with all else that is missing: it names what is absent
        for change in found.changes:
            print(change, flush=True)
        outside.write(found, artifacts.outside)
        params, files = experiment.params, sum(len(of) for one in found.listings.values() for of in one.values())
        inputs = {"checkpoints": len(params.checkpoints), "systems": len(params.systems)}
        outside_too = ({"files outside": files}, {"changed folders": len(found.changes)}) if files else ({}, {})
        log.rows(inputs=inputs | outside_too[0], outputs=outside_too[1])


if __name__ == "__main__":
    main()

"""Which systems an experiment evaluates, and how its rounds follow from each other."""

from alignslm.config.experiment import Experiment


def evaluated(experiment: Experiment) -> tuple[str, ...]:
    """Return the evaluated systems in the order of the report: sampled baselines, rounds, then the topline."""
    params = experiment.params
    sampled = [name for name, item in params.controls.items() if item.source == "model"]
    spoken = [name for name, item in params.controls.items() if item.source == "corpus"]
    return (*sampled, *params.rounds, *spoken)


def topline(experiment: Experiment) -> str:
    """Return the system of ground-truth continuations; `true` if the experiment evaluates none."""
    return next((name for name, item in experiment.params.controls.items() if item.source == "corpus"), "true")


def previous(experiment: Experiment) -> dict[str, str]:
    """Return the checkpoint that each round was trained from, by round."""
    return {name: item.prev for name, item in experiment.params.rounds.items()}


def last_round(experiment: Experiment) -> str:
    """Return the round that is reported as the result."""
    return list(experiment.params.rounds)[-1]


def lineage(experiment: Experiment) -> list[str]:
    """List the checkpoints that lead to the last round, the base model first."""
    parents, found = previous(experiment), [last_round(experiment)]
    while found[0] in parents:
        found.insert(0, parents[found[0]])
    return found

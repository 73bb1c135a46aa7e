"""Which systems an experiment evaluates, and how its rounds follow from each other."""

from alignslm.config.experiment import Experiment


def evaluated(experiment: Experiment) -> tuple[str, ...]:
    """Return the evaluated systems in the order of the report: sampled baselines, rounds, then the topline."""
    return tuple(experiment.params.ordered_systems)


def topline(experiment: Experiment) -> str:
    """Return the system of ground-truth continuations; `ground-truth` if the experiment evaluates none."""
    return next(iter(experiment.params.toplines), "ground-truth")


def previous(experiment: Experiment) -> dict[str, str]:
    """Return the checkpoint that each round was trained from, by round."""
    return {name: item.init_from for name, item in experiment.params.rounds.items()}


def last_round(experiment: Experiment) -> str:
    """Return the round that is reported as the result."""
    return list(experiment.params.rounds)[-1]


def lineage(experiment: Experiment) -> list[str]:
    """List the checkpoints that lead to the last round, the base model first."""
    parents, found = previous(experiment), [last_round(experiment)]
    while found[0] in parents:
        found.insert(0, parents[found[0]])
    return found

"""Turn scores into preference pairs by weights, selector and thresholds."""

from alignslm import tables
from alignslm.config.feedback import ThresholdSelector
from alignslm.pairs.counts import PairCounter
from alignslm.pairs.own import load_selector
from alignslm.pairs.streaming import Sources, rules_of, stream_pairs
from alignslm.storage import write_text
from stages.names import requested_name
from stages.run import start


def main(name: str) -> None:
    """Run the stage for one set of preferences."""
    with start(__file__, name) as run:
        artifacts, rules = run.artifacts, run.params.preferences[name]
        sources = Sources(artifacts.table("scores", name), artifacts.table("continuations", name), artifacts.prompts)
        contract = tables.contract_of(tables.CONTINUATIONS, sources.continuations)
        contract.require(
            tables.contract_of(tables.PROMPTS, sources.prompts),
            mine=str(sources.continuations),
            theirs=str(sources.prompts),
        )
        selector = load_selector(run.experiment.selector, code=artifacts.own_code(f"selector/{run.params.selector}"))
        rules = rules_of(sources, weights=run.params.weights, selector=selector, rules=rules)
        counter = PairCounter(max_auto_bleu=rules.max_auto_bleu)
        with (
            tables.open_table(tables.PAIRS, artifacts.table("pairs", name), contract) as pairs,
            tables.open_table(tables.SKIPPED_PROMPTS, artifacts.table("skipped_prompts", name)) as skipped_prompts,
        ):
            for made in stream_pairs(sources, weights=run.params.weights, selector=selector, round=rules, name=name):
                pairs.add(made.pairs)
                skipped_prompts.add(made.skipped_prompts)
                counter.add(*made)
        counts = counter.close(rules if isinstance(selector, ThresholdSelector) else None)
        write_text(artifacts.pair_counts(name), counts.model_dump_json(indent=1) + "\n")
        prompts = counts.train.prompts + counts.valid.prompts
        run.log.rows(inputs={"prompts": prompts}, outputs={"pairs": pairs.rows})


if __name__ == "__main__":
    main(requested_name())

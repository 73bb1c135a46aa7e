"""Let the training judge score every transcript; all raw metrics are columns, none is combined yet."""

import polars as pl

from alignslm import tables
from alignslm.judge.rows import join_judge_inputs, score
from alignslm.prompts import read_prompts
from stages.judging import cached_judge
from stages.names import requested_name
from stages.run import outcomes, start


def main(name: str) -> None:
    """Run the stage for one set of preferences."""
    with start(__file__, name) as run, run.work() as work:
        choice, config, artifacts = run.params.judge, run.experiment.judge, run.artifacts
        stories = join_judge_inputs(
            tables.read(tables.CONTINUATIONS, artifacts.table("continuations", name)),
            tables.read(tables.TRANSCRIPTS, artifacts.table("transcripts", name)),
            read_prompts(*artifacts.prompt_tables),
        )
        judge = cached_judge(run, choice, config, work, label=run.label)
        scored = score(stories, judge, auto_bleu=run.params.auto_bleu)
        tables.write(scored, tables.SCORES, artifacts.table("scores", name))
        tables.write(scored.with_columns(judge=pl.lit(choice)), tables.REPLIES, artifacts.table("replies", name))
        run.log.rows(inputs={"transcripts": len(stories)}, outputs=outcomes(scored))


if __name__ == "__main__":
    main(requested_name())

"""Make the corpus: spoken utterances, and clean texts that judges may be fitted on."""

from alignslm import tables
from alignslm.config.loading import load_execution, load_experiment
from alignslm.progress import stage
from alignslm.storyworld.corpus import speak_corpus, story_texts
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("corpus") as log:
        config, execution = load_experiment().corpus, load_execution()
        shards = speak_corpus(config, workers=execution.workers, shard_rows=execution.shard_rows)
        spoken = tables.write_shards(shards, tables.UTTERANCES, layout.UTTERANCES)
        texts = story_texts(config)
        tables.write(texts, tables.TEXTS, layout.TEXTS)
        log.rows(inputs={}, outputs={"utterances": spoken, "texts": len(texts)})


if __name__ == "__main__":
    main()

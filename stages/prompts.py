"""Cut the prompts of every split, and keep their ground-truth continuations."""

from alignslm import tables
from alignslm.prompts import make_prompts
from stages.run import start

COLUMNS = ["utterance_id", "text", "prompt_text", "continuation_text", "prompt_end_s", "word_ends_s"]


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        artifacts = run.artifacts
        encoded = tables.read(tables.ENCODED, artifacts.units)
        contract = tables.contract_of(tables.ENCODED, artifacts.units)
        utterances = tables.read(tables.UTTERANCES, artifacts.utterances, COLUMNS)
        prompts = make_prompts(encoded, utterances, run.params.prompts, frame_rate_hz=contract.frame_rate_hz)
        tables.require_keys(prompts, "utterance_id", utterances, "utterance_id", names="prompts to utterances")
        tables.write(prompts, tables.PROMPTS, artifacts.prompts, contract)
        run.log.rows(inputs={"utterances": len(encoded)}, outputs={"prompts": len(prompts)})


if __name__ == "__main__":
    main()

"""Fit or fetch the speech-to-unit encoder, on training speech only."""

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.encoder import load_encoder, prepare_encoder
from alignslm.encoder.robustness import NUM_UTTERANCES, robustness
from alignslm.utterances import iter_waveforms, select_by_hash
from stages.run import start


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        warn_emulated(run.experiment, run.execution, "encoder")
        config, source = run.experiment.encoder, run.artifacts.utterances
        utterances = tables.read(tables.UTTERANCES, source, ["utterance_id", "split"])
        chosen = select_by_hash(utterances, "train", config.fit_utterances, "encoder")
        tried = select_by_hash(utterances, "train", NUM_UTTERANCES, "encoder")
        rate_hz = config.sample_rate_hz
        waveforms, some = ((wave for _, wave in iter_waveforms(source, set(ids), rate_hz)) for ids in (chosen, tried))
        code = run.artifacts.own_code(f"encoder/{run.params.encoder}")
        prepare_encoder(config, waveforms, run.artifacts.encoder, device=run.execution.device, code=code)
        encoder = load_encoder(config, run.artifacts.encoder, device=run.execution.device)
        run.log.log_metrics(robustness(encoder, list(some), rate_hz))
        run.log.rows(inputs={"utterances": len(chosen)}, outputs={"encoder": 1})


if __name__ == "__main__":
    main()

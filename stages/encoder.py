"""Fit or fetch the speech-to-unit encoder, on training speech only."""

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.loading import load_execution, load_experiment
from alignslm.encoder import prepare_encoder
from alignslm.progress import stage
from alignslm.utterances import pick, waveforms_of
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("encoder") as log:
        experiment = load_experiment()
        warn_emulated(experiment, load_execution(), "encoder")
        config = experiment.encoder
        utterances = tables.read(tables.UTTERANCES, layout.UTTERANCES, ["utterance_id", "split"])
        chosen = pick(utterances, "train", config.fit_utterances, "encoder")
        waveforms = (wave for _, wave in waveforms_of(layout.UTTERANCES, set(chosen), config.sample_rate_hz))
        prepare_encoder(
            config,
            waveforms,
            layout.ENCODER,
            device=load_execution().device,
            code=layout.own_code(f"encoder/{experiment.params.encoder}"),
        )
        log.rows(inputs={"utterances": len(chosen)}, outputs={"encoder": 1})


if __name__ == "__main__":
    main()

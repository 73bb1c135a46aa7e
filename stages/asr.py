"""Fit or fetch the recogniser, on training speech as recorded and as the vocoder says it again."""

import polars as pl

from alignslm import tables
from alignslm.asr import prepare_asr
from alignslm.audio import resample
from alignslm.config.loading import load_experiment
from alignslm.progress import stage
from alignslm.utterances import pick, waveforms_of
from alignslm.vocoder import load_vocoder
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("asr") as log:
        experiment = load_experiment()
        config = experiment.asr
        texts = tables.read(tables.UTTERANCES, layout.UTTERANCES, ["utterance_id", "split", "text"])
        chosen = pick(texts.drop_nulls("text"), "train", config.fit_utterances, "asr")
        said = dict(texts.filter(pl.col("utterance_id").is_in(chosen)).select("utterance_id", "text").iter_rows())
        spoken = [
            (waveform, said[name])
            for name, waveform in waveforms_of(layout.UTTERANCES, set(chosen), config.sample_rate_hz)
        ]
        again = chosen[: round(config.resynthesised_share * len(chosen))]
        units = tables.read(tables.ENCODED, layout.UNITS).filter(pl.col("utterance_id").is_in(again))
        vocoder = load_vocoder(experiment.vocoder, layout.VOCODER)
        spoken += [
            (resample(waveform, from_hz=vocoder.sample_rate_hz, to_hz=config.sample_rate_hz), said[name])
            for name, waveform in zip(units["utterance_id"], vocoder.synthesize(units["units"].to_list()), strict=True)
        ]
        log.figures(prepare_asr(config, spoken, layout.ASR))
        log.rows(inputs={"original": len(chosen), "resynthesised": len(again)}, outputs={"recogniser": 1})


if __name__ == "__main__":
    main()

"""A unit LM with an experiment's speech models: encoder, vocoder and ASR model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from alignslm import audio, tables
from alignslm.artifacts import Artifacts
from alignslm.asr import ASRModel, load_asr
from alignslm.asr.rows import transcribe
from alignslm.config.execution import Execution
from alignslm.config.experiment import Experiment, Params
from alignslm.config.feedback import Sampling
from alignslm.config.loading import load_execution, load_experiment
from alignslm.encoder import Encoder, load_encoder
from alignslm.generation.prompt import PlayError, Prompt, prompt_key, read_audio
from alignslm.generation.resolve import checkpoint_folder, speech_folders
from alignslm.generation.take import Continuation
from alignslm.judge import Judge, JudgeInput, is_api_judge, load_judge
from alignslm.lm.checkpoint import UnitLM, load_lm
from alignslm.lm.rows import sample_continuations
from alignslm.prompts import read_prompts
from alignslm.recordings import recordings_of
from alignslm.vocoder import Vocoder, load_vocoder
from alignslm.vocoder.rows import synthesize_rows

PURPOSE = "evaluation"  # as the stage `samples`: equal prompt, model, seed and sampling give equal samples
MAX_SECONDS = 3600
# Bounds of a caller's options, and a hint.
BOUNDS = {
    "num_continuations": (1, 10_000, ""),
    "temperature": (1e-4, 100, "; 0.01 is nearly greedy"),
    "top_p": (1e-6, 1, ""),
}


@dataclass(frozen=True)
class SpeechPipeline:
    """An experiment with its encoder, vocoder and ASR model."""

    root: Path
    encoder: Encoder
    vocoder: Vocoder
    asr: ASRModel
    experiment: Experiment
    execution: Execution

    @property
    def params(self) -> Params:
        """The values of params.yaml."""
        return self.experiment.params

    @property
    def _artifacts(self) -> Artifacts:
        return Artifacts(self.root / "artifacts")

    @classmethod
    def open(cls, root: Path | str = ".") -> "SpeechPipeline":
        """Load the speech models of the experiment in `root` (the folder of params.yaml).

        Raises PlayError if they do not exist yet, ContractError if vocoder and encoder do not match.
        """
        root = Path(root)
        experiment, execution = load_experiment(root), load_execution(root)
        folders = speech_folders(root)
        encoder = load_encoder(experiment.encoder, folders["encoder"], device=execution.device)
        vocoder = load_vocoder(experiment.vocoder, folders["vocoder"], device=execution.device)
        vocoder.contract.require(encoder.contract, mine=str(folders["vocoder"]), theirs=str(folders["encoder"]))
        asr = load_asr(experiment.asr, folders["asr"], device=execution.device)
        return cls(root, encoder, vocoder, asr, experiment, execution)

    def load_model(self, model: str) -> "SpokenLM":
        """Load a checkpoint by name, folder or Hub id; ContractError if its units are not the encoder's."""
        folder = checkpoint_folder(model, self.root)
        lm = load_lm(folder, device=self.execution.device)
        lm.contract.require(self.encoder.contract, mine=str(folder), theirs=str(self._artifacts.encoder))
        return SpokenLM(self, lm, model)

    def load_judge(self) -> Judge | None:
        """Load the training judge. None if it is a server, which may cost money, or was not prepared here."""
        config, folder = self.experiment.judge, self._artifacts.judge(self.params.judge)
        if is_api_judge(config) or not folder.is_dir():
            return None
        return load_judge(config, folder, device=self.execution.device)

    def prompt(self, given: Path | str, *, seconds: float | None = None) -> Prompt:
        """Return the prompt of an audio file, or the one with this id in the experiment's prompts table.

        `seconds` keeps only the beginning of a file. PlayError: not audio, silent, too short, too long, unknown id.
        """
        if not Path(given).exists() and self._artifacts.prompts.exists():
            found = read_prompts(*self._artifacts.prompt_tables).filter(prompt_id=str(given))
            if len(found):
                return self._of_experiment(found)
        if seconds is not None and not 0 < seconds < MAX_SECONDS:
            raise PlayError(f"prompt seconds must be positive, and below {MAX_SECONDS}, got {seconds:g}")
        waveform, rate_hz = read_audio(Path(given), seconds=seconds, max_duration_s=self.params.prompts.max_duration_s)
        return self.prompt_of(waveform, rate_hz, name=Path(given).name)

    def prompt_of(self, waveform: np.ndarray, sample_rate_hz: int, *, name: str = "prompt") -> Prompt:
        """Return the prompt of (samples,) float32. PlayError if it has too few units."""
        rate_hz = self.encoder.contract.sample_rate_hz
        (encoded,) = self.encoder.encode([audio.resample(waveform, from_hz=sample_rate_hz, to_hz=rate_hz)])
        units, least = tuple(int(unit) for unit in encoded.units), self.params.prompts.min_units
        if len(units) < least:
            raise PlayError(
                f"{name} is too short: {len(waveform) / sample_rate_hz:.2f} s give {len(units)} units, but the "
                f"model was trained on prompts of at least {least} (prompts.min_units). Record more."
            )
        (transcript,) = self.asr.transcribe(
            [audio.resample(waveform, from_hz=sample_rate_hz, to_hz=self.asr.sample_rate_hz)]
        )
        return Prompt(prompt_key(units), name, waveform, sample_rate_hz, units, transcript.text)

    def _of_experiment(self, found: pl.DataFrame) -> Prompt:
        row = found.row(0, named=True)
        (recording,) = recordings_of(self._artifacts.utterances, found)
        name, units = row["prompt_id"], tuple(row["units"])
        return Prompt(name, name, recording.prompt, recording.sample_rate_hz, units, row["prompt_text"])


@dataclass(frozen=True)
class SpokenLM:
    """A unit language model with an experiment's speech models."""

    studio: SpeechPipeline
    lm: UnitLM
    name: str

    @classmethod
    def load(cls, model: str, *, root: Path | str = ".") -> "SpokenLM":
        """Load a checkpoint (name, folder, Hub id) and the speech models of the experiment in `root`."""
        return SpeechPipeline.open(root).load_model(model)

    def generate(
        self,
        prompt: Prompt | Path | str,
        *,
        num_continuations: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        prompt_seconds: float | None = None,
    ) -> list[Continuation]:
        """Continue a prompt (or a sound file) `num_continuations` times, speak and transcribe.

        Defaults are the experiment's: params.yaml's `sampling` and `seeds.evaluation`. Equal arguments give
        equal samples; a prompt of the experiment gets the very draws of its stage `samples`. Raises PlayError (see
        `SpeechPipeline.prompt`), TooLongError where prompt and continuation exceed the model's positions.
        """
        studio = self.studio
        spoken_prompt = prompt if isinstance(prompt, Prompt) else studio.prompt(prompt, seconds=prompt_seconds)
        rows = pl.DataFrame(
            {"prompt_id": [spoken_prompt.prompt_id], "units": [spoken_prompt.units]},
            schema={"prompt_id": pl.String, "units": tables.UNITS},
        )
        drawn = sample_continuations(
            rows,
            self.lm,
            sampling_of(
                studio.params.sampling, num_continuations=num_continuations, temperature=temperature, top_p=top_p
            ),
            seed=studio.params.seeds.evaluation if seed is None else seed,
            purpose=PURPOSE,
            batch_size=studio.execution.batch_size,
            batch_invariant=studio.execution.batch_invariant,
        )
        spoken = synthesize_rows(drawn, studio.vocoder)
        transcripts = transcribe(spoken, studio.asr)
        triples = zip(drawn.to_dicts(), spoken.to_dicts(), transcripts.to_dicts(), strict=True)
        return [self._take(spoken_prompt, *triple) for triple in triples]

    def _take(
        self, prompt: Prompt, drawn: Mapping[str, Any], spoken: Mapping[str, Any], transcript: Mapping[str, Any]
    ) -> Continuation:
        waveform, rate_hz = audio.decode(spoken["audio"]["bytes"])
        return Continuation(
            model=self.name,
            sample_index=drawn["sample_index"],
            prompt=prompt,
            units=tuple(drawn["units"]),
            finish_reason=drawn["finish_reason"],
            logprob=drawn["logprob"],
            seed=drawn["seed"],
            waveform=waveform,
            sample_rate_hz=rate_hz,
            text=transcript["text"],
            status=transcript["status"],
        )


def judged(takes: Sequence[Continuation], judge: Judge) -> list[Continuation]:
    """Return the continuations with the judge's scores of their transcripts; None where prompt or transcript is."""
    read = [take for take in takes if take.text and take.prompt.text]
    inputs = [JudgeInput(str(take.prompt.text), str(take.text)) for take in read]
    scores = {id(take): found.score for take, found in zip(read, judge.judge(inputs), strict=True)}
    return [replace(take, judge_score=scores.get(id(take))) for take in takes]


def sampling_of(
    given: Sampling, *, num_continuations: int | None, temperature: float | None, top_p: float | None
) -> Sampling:
    """Return the experiment's sampling with these values instead. PlayError if one is out of range."""
    wanted = {"num_continuations": num_continuations, "temperature": temperature, "top_p": top_p}
    for name, value in wanted.items():
        least, most, hint = BOUNDS[name]
        if value is not None and not least <= value <= most:
            raise PlayError(f"{name} must be from {least:g} to {most:g}, got {value:g}{hint}")
    return given.model_copy(update={name: value for name, value in wanted.items() if value is not None})

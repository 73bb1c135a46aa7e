"""Continuations as a folder: audio files, transcripts as JSON lines, and a page with players."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignslm.generation.cards import Sources, page
from alignslm.generation.prompt import PlayError, Prompt
from alignslm.generation.take import Continuation, write_audio
from alignslm.storage import replacing_folder, write_text

TRANSCRIPT, PAGE, PROMPT = "transcript.jsonl", "index.html", "prompt.wav"


def write_folder(
    prompt: Prompt, models: Mapping[str, Sequence[Continuation]], folder: Path, *, judge: str | None = None
) -> None:
    """Write prompt.wav, MODEL-N.wav and MODEL-N-after-prompt.wav, transcript.jsonl and index.html.

    `judge` is the name of the judge that scored them, if one did. The folder of an earlier call is replaced; PlayError
    if `folder` contains anything else. Equal continuations give equal bytes.
    """
    if folder.exists() and not (folder / TRANSCRIPT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PlayError(f"{folder} already exists and has no {TRANSCRIPT}; choose another folder with --out")
    with replacing_folder(folder) as partial:
        _write(prompt, models, partial, judge)


def _write(prompt: Prompt, models: Mapping[str, Sequence[Continuation]], folder: Path, judge: str | None) -> None:
    write_audio(prompt.waveform, prompt.sample_rate_hz, folder / PROMPT)
    whole, alone, rows = {}, {}, []
    for stem, (model, takes) in zip(_stems(models), models.items(), strict=True):
        for number, take in enumerate(takes):
            files = f"{stem}-{take.sample_index + 1}.wav", f"{stem}-{take.sample_index + 1}-after-prompt.wav"
            alone[number, model], whole[number, model] = files
            take.save(folder / files[0])
            take.save(folder / files[1], prompt=True)
            rows.append(json.dumps(_row(take, *files), ensure_ascii=False))
    write_text(folder / TRANSCRIPT, "".join(f"{row}\n" for row in rows))
    write_text(folder / PAGE, page(prompt, models, Sources(PROMPT, whole, alone), judge=judge))


def _stems(models: Mapping[str, Sequence[Continuation]]) -> list[str]:
    """Return the stem of each model's files: the last part of its name, numbered if two models share it."""
    last = [model.partition("@")[0].rstrip("/").rpartition("/")[2] or "model" for model in models]
    return [name if last.count(name) == 1 else f"{number}-{name}" for number, name in enumerate(last, 1)]


def _row(take: Continuation, alone: str, whole: str) -> dict[str, object]:
    return {
        "model": take.model,
        "sample_index": take.sample_index,
        "text": take.text,
        "status": take.status,
        "prompt": take.prompt.name,
        "prompt_id": take.prompt.prompt_id,
        "prompt_text": take.prompt.text,
        "seconds": round(take.seconds, 3),
        "finish_reason": take.finish_reason,
        "judge_score": take.judge_score,
        "logprob": take.logprob,
        "seed": take.seed,
        "units": list(take.units),
        "audio": alone,
        "audio_after_prompt": whole,
    }

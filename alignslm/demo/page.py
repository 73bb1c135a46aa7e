"""The page: speech from a file or microphone, continuations of several models side by side. Contacts no other host."""

import os
import webbrowser
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from threading import Timer
from typing import Any, TypeAlias

from alignslm.extras import needed
from alignslm.generation.cards import inline_cards
from alignslm.generation.prompt import PlayError
from alignslm.generation.resolve import checkpoint_folder, checkpoints
from alignslm.generation.studio import SpeechPipeline, SpokenLM
from alignslm.redaction import redact
from alignslm.user_errors import is_user_error

Answer: TypeAlias = Callable[[str | None, Sequence[str], float, float, float, float | None], str]
TITLE = "What does a spoken language model say next?"
INTRO = (
    "Say the beginning of something, or upload a sound file. The models below continue it in speech, without having "
    "seen a word of text; an ASR model transcribes what they say."
)
MOST_DRAWS = 10
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


def build_page(studio: SpeechPipeline, models: Sequence[str]) -> Any:
    """Return the page as gradio.Blocks, not launched."""
    gr, params = load_gradio(), studio.params
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{INTRO}")
        with gr.Row():
            sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Prompt", buttons=[])
            with gr.Column():
                offered = gr.CheckboxGroup(list(models), value=list(models)[:3], label="Models")
                draws = gr.Slider(1, MOST_DRAWS, value=2, step=1, label="Continuations per model")
                warmth = params.sampling.temperature
                temperature = gr.Slider(0.1, 2.0, value=warmth, step=0.05, label="Temperature: higher is bolder")
                longest = params.prompts.max_duration_s
                seconds = gr.Slider(0.5, longest, value=longest, step=0.1, label="Seconds used of the prompt")
                seed = gr.Number(params.seeds.evaluation, precision=0, minimum=0, label="Seed")
        button = gr.Button("Continue", variant="primary")
        shown = gr.HTML()
        inputs = [sound, offered, draws, temperature, seconds, seed]
        button.click(answering(studio), inputs, shown, api_name="continue")
    return page


def launch_options(gr: Any) -> dict[str, Any]:
    """Return launch options: system fonts, no share link, no link to gradio's site."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return {"theme": gr.themes.Base(**fonts), "share": False, "footer_links": [], "ssr_mode": False}


def serve(root: Path, models: Sequence[str] | None, *, host: str, port: int, opened: bool) -> None:
    """Serve the page until interrupted; `opened` opens it in the browser."""
    from alignslm.serving import run

    app = page_app(build_page(SpeechPipeline.open(root), chosen_models(models, root)), host=host, port=port)
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
    options = {name: value for name, value in launch_options(gr).items() if name != "share"}
    app = gr.mount_gradio_app(FastAPI(), page, "/", host, port, max_file_size=UPLOAD_BYTES, **options)
    return SmallRequests(app, UPLOAD_BYTES)


def space_page(root: Path, models: Sequence[str]) -> None:
    """Serve the page in a Space: host and port come from the Space's environment variables."""
    page = build_page(SpeechPipeline.open(root), chosen_models(models, root))
    page.launch(**launch_options(load_gradio()))

"""The web app: one page and its API. No response says which system a clip belongs to."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictInt

from alignslm.config.model import Config
from alignslm.extras import needed
from alignslm.listening.storage import Rater, Rating, Ratings, StorageError
from alignslm.listening.study import Study, StudyError, clip_path, read_study

with needed("fastapi", by="alignslm listen serve"), needed("uvicorn", by="alignslm listen serve"):
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

    from alignslm.serving import SmallRequests, run

PAGE = Path(__file__).parent / "page.html"
HEADERS = {
    # The page is one file with its own script and style, and may connect only to this server.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "media-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the URL contains the rater's token
    "Cache-Control": "no-store",
}
REQUEST_BYTES = 1 << 14  # a rating has 200
MOST_PROBLEMS, MOST_CHARACTERS = 5, 100  # of a wrong request that an answer repeats
Id = Annotated[str, Field(min_length=1, max_length=64)]


class Answer(Config):
    """The request that the page sends when a rater chooses a score."""

    rater: Id
    clip: Id
    submission: Id
    score: Annotated[StrictInt, Field(ge=1, le=5)]
    plays: Annotated[StrictInt, Field(ge=0, le=100_000)]
    seconds: Annotated[float, Field(ge=0, le=1e7)]


class RequestError(ValueError):
    """A request that cannot be answered; sent to the page as JSON."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Session:
    """The study that is served: its clips and their assignment to raters."""

    def __init__(self, folder: Path, ratings: Ratings) -> None:
        """Read the study. StudyError if the folder has none, or clips are missing."""
        self.study: Study
        self.study, clips = read_study(folder)
        self.folder = folder
        self.ratings = ratings
        rows = clips.select("prompt_id", "system", "clip_id", "boundary_s").iter_rows()
        self._clips = {(prompt, system): (clip, boundary) for prompt, system, clip, boundary in rows}
        self.clip_ids = frozenset(clip for clip, _ in self._clips.values())
        wanted = {(prompt, system) for prompt in self.study.prompts for system in self.study.choice.names}
        absent = [f"of {' by '.join(key)}" for key in sorted(wanted - self._clips.keys())]
        paths = (clip_path(folder, clip) for clip in sorted(self.clip_ids))
        if absent := absent or [str(path) for path in paths if not path.is_file()]:
            raise StudyError(f"{folder} lacks {len(absent)} clips, first {absent[0]}. Copy the whole study again.")

    def rater(self, token: str) -> Rater:
        """Return the rater with this link; RequestError if there is none."""
        rater = self.ratings.rater(token)
        if rater is None:
            raise RequestError(404, "This link is unknown. Open the link exactly as you received it.")
        return rater

    def clips_of(self, rater: Rater) -> dict[str, float]:
        """Return a rater's clips in order: clip id -> start of its continuation in seconds."""
        return dict(self._clips[trial.prompt_id, trial.system] for trial in self.study.trials(rater.number))

    def state(self, token: str) -> dict[str, object]:
        """Return the content of a rater's page, including ratings so far."""
        rater, choice = self.rater(token), self.study.choice
        scores = {stored.clip_id: stored.score for stored in self.ratings.stored(rater.rater_id)}
        trials = [
            {"clip": clip, "boundary_s": boundary, "score": scores.get(clip)}
            for clip, boundary in self.clips_of(rater).items()
        ]
        return {"title": choice.title, "question": choice.question, "labels": choice.labels, "trials": trials}

    def record(self, answer: Answer) -> dict[str, object]:
        """Store a rating durably and confirm it. RequestError for an unknown rater or clip, or a contradiction."""
        rater = self.rater(answer.rater)
        if answer.clip not in self.clips_of(rater):
            raise RequestError(404, f"Clip {answer.clip!r} is not assigned to you. Reload the page.")
        rating = Rating(answer.submission, rater.rater_id, answer.clip, answer.score, answer.plays, answer.seconds)
        try:
            new = self.ratings.record(rating)
        except StorageError as error:
            raise RequestError(409, f"Not stored: {error}. Reload the page.") from error
        return {"stored": True, "new": new, "score": answer.score}


def create_app(session: Session) -> FastAPI:
    """Return the app that serves one study."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _install_error_handlers(app)
    _guard(app)
    app.add_middleware(SmallRequests, most_bytes=REQUEST_BYTES, headers=HEADERS)  # the outermost: it comes first

    @app.get("/health")
    def health() -> dict[str, str]:
        """Return that the server is up."""
        return {"status": "ok"}

    @app.get("/r/{token}")
    def page(token: str) -> HTMLResponse:
        """Return the page for a rater; an unknown token is an error."""
        session.rater(token)
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    @app.get("/api/session/{token}")
    def state(token: str) -> dict[str, object]:
        """Return a rater's clips and ratings."""
        return session.state(token)

    @app.post("/api/ratings")
    def rate(answer: Answer) -> dict[str, object]:
        """Store a rating."""
        return session.record(answer)

    @app.get("/audio/{clip_id}.flac")
    def sound(clip_id: str) -> FileResponse:
        """Return a clip of this study; no other file is served."""
        if clip_id not in session.clip_ids:
            raise RequestError(404, "No such clip.")
        return FileResponse(clip_path(session.folder, clip_id), media_type="audio/flac")

    return app


def _install_error_handlers(app: FastAPI) -> None:
    """Answer every error with {"error": message}."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "; ".join(map(_describe, error.errors()[:MOST_PROBLEMS]))}, 422)

    @app.exception_handler(404)
    async def missing(request: Request, _: Exception) -> JSONResponse:
        place = request.url.path[:MOST_CHARACTERS]
        return JSONResponse({"error": f"There is nothing at {place}. Open the link you received."}, 404)


def _describe(problem: Mapping[str, Any]) -> str:
    """Describe one problem of a request, such as "score: Input should be less than or equal to 5"."""
    place = ".".join(map(str, problem["loc"][1:]))[:MOST_CHARACTERS] or "request"
    return f"{place}: {problem['msg'][:MOST_CHARACTERS]}"


def _guard(app: FastAPI) -> None:
    @app.middleware("http")
    async def add(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response


def serve(folder: Path, *, host: str, port: int) -> None:
    """Serve a study until interrupted. StudyError or StorageError if the folder has none."""
    read_study(folder)
    ratings = Ratings.existing(folder / "ratings.sqlite")
    try:
        app = create_app(Session(folder, ratings))
        print(f"serving {folder} at http://{host}:{port}; links: alignslm listen links {folder}", flush=True)
        run(app, host=host, port=port)
    finally:
        ratings.close()

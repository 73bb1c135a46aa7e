"""The web app: one page, four answers. Nothing it sends says whose speech a clip is."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictInt

from alignslm.config.model import Config
from alignslm.extras import needed
from alignslm.listening.storage import Rater, Rating, Ratings, StorageError
from alignslm.listening.study import Study, clip_path, read_study

with needed("fastapi", by="alignslm listen serve"):
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

PAGE = Path(__file__).parent / "page.html"
HEADERS = {
    # The page is one file that holds its own script and style, and may talk to this server only.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "media-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the rater's token
    "Cache-Control": "no-store",
}
Id = Annotated[str, Field(min_length=1, max_length=64)]


class Answer(Config):
    """What the page sends when a rater presses a score."""

    rater: Id
    clip: Id
    submission: Id
    score: Annotated[StrictInt, Field(ge=1, le=5)]
    plays: Annotated[StrictInt, Field(ge=0, le=100_000)]
    seconds: Annotated[float, Field(ge=0, le=1e7)]


class RequestError(ValueError):
    """A request that cannot be answered; told to the page as JSON."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Session:
    """One study being served: its clips, and who is asked about which."""

    def __init__(self, folder: Path, ratings: Ratings) -> None:
        """Read the study. StudyError where the folder holds none."""
        self.study: Study
        self.study, clips = read_study(folder)
        self.folder = folder
        self.ratings = ratings
        rows = clips.select("prompt_id", "system", "clip_id", "boundary_s").iter_rows()
        self._clips = {(prompt, system): (clip, boundary) for prompt, system, clip, boundary in rows}
        self.clip_ids = frozenset(clip for clip, _ in self._clips.values())

    def rater(self, token: str) -> Rater:
        """Return whose link this is; RequestError if nobody's."""
        rater = self.ratings.rater(token)
        if rater is None:
            raise RequestError(404, "This link is not known here. Open the link exactly as you were given it.")
        return rater

    def clips_of(self, rater: Rater) -> dict[str, float]:
        """Return what a rater hears, in order: clip id -> where its continuation begins, in seconds."""
        return dict(self._clips[trial.prompt_id, trial.system] for trial in self.study.trials(rater.number))

    def state(self, token: str) -> dict[str, object]:
        """Return all that a rater's page shows, answers already given included."""
        rater, choice = self.rater(token), self.study.choice
        given = {stored.clip_id: stored.score for stored in self.ratings.stored(rater.rater_id)}
        trials = [
            {"clip": clip, "boundary_s": boundary, "score": given.get(clip)}
            for clip, boundary in self.clips_of(rater).items()
        ]
        return {"title": choice.title, "question": choice.question, "labels": choice.labels, "trials": trials}

    def record(self, answer: Answer) -> dict[str, object]:
        """Store an answer durably, then say so. RequestError for a stranger, a foreign clip or a contradiction."""
        rater = self.rater(answer.rater)
        if answer.clip not in self.clips_of(rater):
            raise RequestError(404, f"Clip {answer.clip!r} is none of yours. Reload the page.")
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

    @app.get("/health")
    def health() -> dict[str, str]:
        """Answer that the server is up."""
        return {"status": "ok"}

    @app.get("/r/{token}")
    def page(token: str) -> HTMLResponse:
        """Give a rater the page; a token that nobody has is refused."""
        session.rater(token)
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    @app.get("/api/session/{token}")
    def state(token: str) -> dict[str, object]:
        """Tell a rater's page what is to be heard, and what was rated."""
        return session.state(token)

    @app.post("/api/ratings")
    def rate(answer: Answer) -> dict[str, object]:
        """Store a rating."""
        return session.record(answer)

    @app.get("/audio/{clip_id}.flac")
    def sound(clip_id: str) -> FileResponse:
        """Give a clip of this study; no other file can be asked for."""
        if clip_id not in session.clip_ids:
            raise RequestError(404, "No such clip.")
        return FileResponse(clip_path(session.folder, clip_id), media_type="audio/flac")

    return app


def _install_error_handlers(app: FastAPI) -> None:
    """Answer every fault with {"error": what, where and what to do}."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "; ".join(map(_fault, error.errors()))}, 422)

    @app.exception_handler(404)
    async def missing(request: Request, _: Exception) -> JSONResponse:
        return JSONResponse({"error": f"There is nothing at {request.url.path}. Open the link you were given."}, 404)


def _fault(fault: Mapping[str, object]) -> str:
    """Say one fault of a request, such as "score must be a whole number from 1 to 5, found 6"."""
    location = fault["loc"]
    key = str(location[-1]) if isinstance(location, tuple) and len(location) > 1 else "the request"
    match fault["type"]:
        case "missing":
            return f"{key} is missing"
        case "json_invalid":
            return "the request is no JSON"
        case "extra_forbidden":
            return f"{key} is not known"
    if key == "score":
        return f"score must be a whole number from 1 to 5, found {fault['input']!r}"
    return f"{key}: {fault['msg']}, found {fault['input']!r}"


def _guard(app: FastAPI) -> None:
    @app.middleware("http")
    async def add(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response


def serve(folder: Path, *, host: str, port: int) -> None:
    """Serve a study until interrupted. StudyError or StorageError where the folder holds none."""
    with needed("uvicorn", by="alignslm listen serve"):
        import uvicorn

    ratings = Ratings.existing(folder / "ratings.sqlite")
    try:
        uvicorn.run(create_app(Session(folder, ratings)), host=host, port=port, log_level="warning")
    finally:
        ratings.close()

"""Servers that strangers reach: small requests, few connections, one line of log for each excess."""

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from alignslm.extras import needed

with needed("fastapi", by="a server"):
    from fastapi.responses import JSONResponse
with needed("uvicorn", by="a server"):
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_S = 30.0  # for a whole request: a connection that sends nothing or a byte now and then is closed
BACKLOG = 16  # connections accepted at once, before they are counted
MOST_FILES = 1 << 13
QUIET_S = 60.0  # between two lines of log about too many connections


class SmallRequests:
    """Answer 413 to a request of more than `most_bytes`, without reading or keeping the rest."""

    def __init__(self, app: ASGIApp, most_bytes: int, headers: Mapping[str, str] | None = None) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._headers = {"Connection": "close", **(headers or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more and len(body) <= self._most_bytes:
            message = await receive()
            if message["type"] != "http.request":
                return
            body.extend(message.get("body", b""))
            more = message.get("more_body", False)
        if len(body) > self._most_bytes:
            answer = {"error": f"The request is larger than {self._most_bytes} bytes."}
            await JSONResponse(answer, 413, self._headers)(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)


def most_connections() -> int:
    """Return half of the files that the process may open: a connection and the clip that it asks for."""
    files = MOST_FILES
    with suppress(ModuleNotFoundError):  # Windows has none, and no such limit
        import resource

        files = min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return max(BACKLOG, files // 2 - BACKLOG)


def run(app: ASGIApp, *, host: str, port: int) -> None:
    """Serve until interrupted."""
    with suppress(KeyboardInterrupt):
        server_of(app, host=host, port=port).run()


def server_of(app: ASGIApp, *, host: str, port: int) -> uvicorn.Server:
    """Return the server, not started."""
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", http=FewConnections, backlog=BACKLOG, ws="none"
    )
    return uvicorn.Server(config)


class FewConnections(H11Protocol):
    """HTTP as uvicorn speaks it, with `most_connections` at once and REQUEST_S seconds for each request."""

    _told_at = -QUIET_S
    _seen: Any = None

    def connection_made(self, transport: "asyncio.Transport") -> None:  # type: ignore[override]  # as in uvicorn
        """Close a connection too many at once."""
        super().connection_made(transport)
        if len(self.connections) <= most_connections():
            self.loop.call_later(REQUEST_S, self._close_if_it_hangs)
            return
        transport.abort()
        if time.monotonic() - FewConnections._told_at >= QUIET_S:
            FewConnections._told_at = time.monotonic()
            self.logger.warning("more than %d connections are open: new ones are closed", most_connections())

    def _close_if_it_hangs(self) -> None:
        """Close the connection if it made no request, or has not finished one, since this was last called."""
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        idle = cycle is None or cycle.more_body or (cycle is self._seen and cycle.response_complete)
        if idle:
            self.transport.abort()
            return
        self._seen = cycle
        self.loop.call_later(REQUEST_S, self._close_if_it_hangs)

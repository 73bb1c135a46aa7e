"""Chat completions servers on loopback: one that fails on request and counts what it is asked, and a real one."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Response:
    """What is sent back: status, body (text, or JSON of anything else), headers, and how long it and each byte take."""

    body: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    byte_s: float = 0.0


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None) -> Response:
    """A well-formed answer that cost 100 + 10 tokens."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Response({"id": "x", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": usage})


def failure(status: int, message: str, *, code: str | None = None, **headers: str) -> Response:
    """An error as OpenAI words it."""
    body = {"error": {"message": message, "type": "x", "code": code, "param": None}}
    return Response(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass
class Server:
    """`answer(question, number of times this question came before, body)` decides; `seen` keeps every body."""

    answer: Callable[[str, int, dict], Response]
    url: str = ""
    seen: list[dict] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    headers: list[Message] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(answer: Callable[[str, int, dict], Response]) -> Iterator[Server]:
    """Run the server in threads of this process."""
    server, lock, under_way = Server(answer), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            """Refuse, as a proxy does."""
            self.send_error(403, "no tunnels")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][0]["content"]
            with lock:
                before = sum(1 for other in server.seen if other["messages"][0]["content"] == question)
                server.seen.append(body | {"path": self.path})
                server.keys.add(self.headers["Authorization"])
                server.headers.append(self.headers)
                under_way[0] += 1
                server.most_at_once = max(server.most_at_once, under_way[0])
            response = server.answer(question, before, body)
            time.sleep(response.delay_s)
            with lock:
                under_way[0] -= 1
            text = response.body if isinstance(response.body, str) else json.dumps(response.body)
            data = text.encode()
            try:
                self.send_response(response.status)
                for name, value in {"Content-Type": "application/json", **response.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                step = 1 if response.byte_s else max(1, len(data))
                for start in range(0, len(data), step):
                    self.wfile.write(data[start : start + step])
                    time.sleep(response.byte_s)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has given up waiting

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        server.url = f"http://127.0.0.1:{running.server_address[1]}/v1"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()


@contextmanager
def transformers_serve(model: Path) -> Iterator[str]:
    """Run `transformers serve` for a model's folder, and yield its base_url once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model, "--device", "cpu", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert server.poll() is None, "transformers serve has ended"
                assert time.monotonic() < deadline, "transformers serve does not come up"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

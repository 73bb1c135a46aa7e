"""The guard of connections, by which a run is shown to need no other machine, guards."""

import socket
import subprocess
import sys

import pytest

from tests.micro import ENVIRONMENT, loopback_only

TRIES = """
import os, socket, sys

def attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        print(type(error).__name__)
    else:
        print("connected")

own = socket.socket(type=socket.SOCK_DGRAM)
if sys.argv[1:] == ["fork"] and os.fork():
    os.wait()
    raise SystemExit
attempt(socket.create_connection, ("127.0.0.1", int(os.environ["PORT"])))
attempt(socket.create_connection, ("localhost", int(os.environ["PORT"])))
attempt(socket.create_connection, ("192.0.2.1", 80))
attempt(own.sendto, b"", ("192.0.2.1", 53))
attempt(socket.getaddrinfo, "example.org", 443)
attempt(socket.gethostbyname, "example.org")
"""
WANTED = ["socket.getaddrinfo 192.0.2.1", "socket.sendto 192.0.2.1"] + [
    f"socket.{event} example.org" for event in ("getaddrinfo", "gethostbyname")
]


@pytest.mark.parametrize("process", ["itself", "fork"])
def test_other_machines_are_refused_and_written_down_and_this_one_is_not(process, tmp_path):
    record = tmp_path / "record.txt"
    with socket.create_server(("127.0.0.1", 0)) as server:
        variables = {**ENVIRONMENT, **loopback_only(record), "PORT": str(server.getsockname()[1])}
        command = (sys.executable, "-c", TRIES, process)
        told = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert told.split() == ["connected"] * 2 + ["ConnectionRefusedError"] * 4
    lines = [line for line in record.read_text().splitlines() if line.startswith("socket.")]
    assert [" ".join(line.split()[:2]) for line in lines] == WANTED

"""A server of the S3 protocol on loopback (moto's), in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "experiments"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
SERVER = f"""
import boto3, logging, threading
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
client = boto3.client("s3", endpoint_url=f"http://{{host}}:{{port}}")
client.create_bucket(Bucket={BUCKET!r})
client.put_bucket_versioning(Bucket={BUCKET!r}, VersioningConfiguration={{"Status": "Enabled"}})
print(f"http://{{host}}:{{port}}", flush=True)
threading.Event().wait()
"""


@contextmanager
def serve_s3() -> Iterator[str]:
    """Yield the endpoint of a server that holds one empty bucket, which keeps versions."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, **CREDENTIALS},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        endpoint = process.stdout.readline().strip()
        assert endpoint.startswith("http://127.0.0.1:"), f"no S3 server came up (exit {process.poll()})"
        yield endpoint
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

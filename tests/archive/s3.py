"""S3 over HTTP: a store that works (moto), and servers that refuse."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from moto.server import ThreadedMotoServer

from raftdb.ops.ports import free_ports

BUCKET = "archive-bucket"


@contextmanager
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server with a bucket, and credentials for it in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_ports(1), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        request.add_header("Host", f"{host}:{port}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        yield address
    server.stop()


@contextmanager
def refusing_endpoint(status: int, code: str) -> Iterator[str]:
    """A server that answers everything by that error."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", free_ports(1)), Refuse)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def s3_url(endpoint: str, prefix: str) -> str:
    """Of an archive there."""
    return f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&region=us-east-1&timeout=2"

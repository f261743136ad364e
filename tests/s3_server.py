"""An S3 server on loopback, moto's, with faults that can be switched on.

Real clients (s3fs, botocore) talk to it over sockets, so that their own retries, paging and multipart uploads are
what is tested. Run by threads of the test process; clients may be other processes.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import S3Backend, s3_backends
from moto.server import DomainDispatcherApplication
from werkzeug.serving import make_server

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
"""The credentials of :meth:`S3Server.environment`; any are accepted until :meth:`S3Server.guarded`."""

_SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""


@dataclass
class Fault:
    """A fault of some requests.

    Attributes:
        kind: ``"slow"`` answers 503 SlowDown; ``"reset"`` takes half of what is sent, then resets the connection;
            ``"cut"`` answers half of the body, then resets it; ``"lost"`` executes the request, then resets it in place
            of answering; ``"call"`` calls ``then``, and answers as usual.
        method: The requests' method.
        fragment: A fragment of the requests' path and query, unquoted.
        times: Number of requests that fail.
        after: Number of requests that succeed first.
        then: Called for each.
    """

    kind: str
    method: str
    fragment: str = ""
    times: int = 1
    after: int = 0
    then: Callable[[], object] = lambda: None


class S3Server:
    """The server; ``url`` is the ``AWS_ENDPOINT_URL``."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        app = DomainDispatcherApplication(create_backend_app)
        self.http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_handler_of(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables of boto for the server, and those that keep other settings out."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "nowhere",
            "AWS_MAX_ATTEMPTS": "1",  # s3fs tries again itself
            "NO_PROXY": "127.0.0.1",
        }

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Note a request and return what is to go wrong with it."""
        with self.lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.method == method and fault.fragment in path and fault.times:
                    if fault.after:
                        fault.after -= 1
                    else:
                        fault.times -= 1
                        return fault
        return None

    def count(self, method: str, fragment: str = "") -> int:
        """Return the number of requests since the last :meth:`forget`."""
        return sum(m == method and fragment in path for m, path in self.requests)

    def forget(self) -> None:
        """Drop the faults and the requests."""
        with self.lock:
            self.faults.clear()
            self.requests.clear()

    # What is in the buckets, without requests

    @property
    def _backend(self) -> S3Backend:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def make_bucket(self, name: str) -> None:
        self._backend.create_bucket(name, "us-east-1")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._backend.put_object(bucket, key, data)

    def get(self, bucket: str, key: str) -> bytes:
        found = self._backend.get_object(bucket, key)
        assert found is not None, f"there is no {key}"
        return found.value

    def remove(self, bucket: str, key: str) -> None:
        self._backend.delete_object(bucket, key)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(k for k in self._backend.buckets[bucket].keys if k.startswith(prefix))

    # Rights

    @contextmanager
    def guarded(self, *actions: str) -> Iterator[dict[str, str]]:
        """Take requests of one user only, who may do ``actions`` ("s3:GetObject"); gives the user's variables."""
        iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
        iam.create_user("us-east-1", "user")
        key = iam.create_access_key("user")
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [allowed]}
        iam.put_user_policy("user", "policy", json.dumps(policy))
        before, settings.INITIAL_NO_AUTH_ACTION_COUNT = settings.INITIAL_NO_AUTH_ACTION_COUNT, 0
        try:
            yield {"AWS_ACCESS_KEY_ID": key.access_key_id, "AWS_SECRET_ACCESS_KEY": key.secret_access_key}
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before
            iam.delete_user_policy("user", "policy")
            iam.delete_access_key(key.access_key_id, "user")
            iam.delete_user("user")


@contextmanager
def running_s3() -> Iterator[S3Server]:
    server = S3Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
        s3_backends.reset()  # moto's buckets outlive its servers; a later server of this process starts empty


def _handler_of(server: S3Server) -> type[MotoRequestHandler]:
    class Handler(MotoRequestHandler):
        def log(self, *args: Any) -> None:
            pass

        def run_wsgi(self) -> None:
            fault = server.take_fault(self.command, unquote(self.path))
            kind = "call" if fault is None else fault.kind
            if fault is not None:
                fault.then()
            length = int(self.headers.get("Content-Length", 0))
            if kind == "slow":
                self.rfile.read(length)
                self.send_response(503)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(_SLOW_DOWN)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else _SLOW_DOWN)
            elif kind == "reset":
                self.rfile.read(length // 2)
                self.reset()
            elif kind in ("cut", "lost"):
                wfile, self.wfile = self.wfile, io.BytesIO()
                super().run_wsgi()
                head, _, body = self.wfile.getvalue().partition(b"\r\n\r\n")
                self.wfile = wfile
                if kind == "cut":
                    self.wfile.write(head + b"\r\n\r\n" + body[: len(body) // 2])
                    self.wfile.flush()
                self.reset()
            else:
                super().run_wsgi()

        def reset(self) -> None:
            """Reset the connection, so that the client notices at once and cannot take it for the end of the answer."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in (self.rfile, self.wfile, self.connection):
                end.close()
            self.rfile = self.wfile = io.BytesIO()  # what http.server flushes and closes after all
            self.close_connection = True

    return Handler

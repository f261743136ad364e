"""A Hub and an authors' release on loopback, with faults that can be switched on.

Serves what the real ``huggingface_hub`` client asks for when it downloads a file, creates a repository and
makes a commit, and plain files under ``/origin/``. Run by threads of the test process; clients may be others.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repo:
    """A repository: its branches and tags, and the files of each commit."""

    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False
    token: str | None = None
    gated: bool = False

    def commit(self, files: dict[str, bytes], message: str = "", ref: str = "main") -> str:
        content = json.dumps(
            [len(self.commits), *sorted((k, hashlib.sha256(v).hexdigest()) for k, v in files.items())]
        )
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        self.refs[ref] = sha
        self.messages.append(message)
        return sha


@dataclass
class Faults:
    """Faults of GETs of files; each counts down to zero unless it is ``always``.

    Attributes:
        statuses: Answered first, one each.
        truncate: Send this many bytes of the body, then close; one each.
        corrupt: Flip a byte of so many bodies.
        delay: Seconds to wait before each body.
    """

    statuses: list[int] = field(default_factory=list)
    head_statuses: list[int] = field(default_factory=list)
    truncate: list[int] = field(default_factory=list)
    corrupt: int = 0
    delay: float = 0.0
    retry_after: str | None = None


class _Server(ThreadingHTTPServer):
    """Prints nothing about clients that hang up, which some do after an error."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """The server; ``url`` is the ``HF_ENDPOINT``, ``origin(name)`` a release file's address."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = defaultdict(Repo)
        self.origins: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.http = _Server(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def stop(self) -> None:
        """Stop answering, also on open connections."""
        self.http.shutdown()
        self.http.server_close()
        close_sessions()

    def origin(self, name: str) -> str:
        return f"{self.url}/origin/{name}"

    def count(self, method: str, contains: str = "") -> int:
        return sum(m == method and contains in path for m, path, _ in self.requests)


def close_sessions() -> None:
    """Have the client in this process open new connections, under the name that its version has for it."""
    if (close := getattr(huggingface_hub, "close_session", None)) is None:
        from huggingface_hub.utils import reset_sessions as close
    close()


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def _handler_of(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.route("HEAD")

        def do_GET(self) -> None:
            self.route("GET")

        def do_POST(self) -> None:
            self.route("POST")

        def do_PUT(self) -> None:
            self.route("PUT")

        def route(self, method: str) -> None:
            path = unquote(urlsplit(self.path).path)
            if not path.startswith("/api/agent-"):  # a list that the client downloads once a day for itself
                with server.lock:
                    server.requests.append((method, path, dict(self.headers)))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if method in ("POST", "PUT"):
                self.write_api(path, body)
            elif path.startswith("/origin/"):
                self.origin_file(method, path.removeprefix("/origin/"))
            elif found := re.fullmatch(
                r"/api/models/(.+)/revision/main", path
            ):  # before version 1 of the client
                self.answer_json({"id": found[1], "xetEnabled": False})
            elif found := _RESOLVE.fullmatch(path):
                self.repo_file(method, **found.groupdict())
            else:
                self.answer(404, b"no such route")

        # Reading

        def origin_file(self, method: str, name: str) -> None:
            if name.startswith("moved/"):
                self.answer(302, b"", {"Location": server.origin(name.removeprefix("moved/"))})
                return
            if name not in server.origins:
                self.answer(404, b"Not Found")
                return
            data = server.origins[name]
            self.send_file(method, data, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

        def repo_file(self, method: str, repo: str, revision: str, file: str) -> None:
            if repo not in server.repos:
                self.answer(
                    401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
                )
                return
            found = server.repos[repo]
            if found.token is not None and self.headers.get("Authorization") != f"Bearer {found.token}":
                if found.gated:
                    self.answer(
                        401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
                    )
                else:
                    self.answer(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
                return
            commit = found.refs.get(revision, revision)
            if commit not in found.commits:
                self.answer(
                    404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
                )
                return
            if file not in found.commits[commit]:
                missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
                self.answer(404, b"", {**missing, "X-Repo-Commit": commit})
                return
            data = found.commits[commit][file]
            large = file.endswith(".safetensors")
            tag = (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{tag}"'}
            if large:
                headers |= {"X-Linked-ETag": f'"{tag}"', "X-Linked-Size": str(len(data))}
            self.send_file(method, data, headers)

        def send_file(self, method: str, data: bytes, headers: dict[str, str]) -> None:
            faults = server.faults
            statuses = faults.head_statuses if method == "HEAD" else faults.statuses
            with server.lock:
                if statuses:
                    status = statuses.pop(0)
                    extra = {"Retry-After": faults.retry_after} if faults.retry_after else {}
                    self.answer(status, b"the server is tired", extra)
                    return
                cut = faults.truncate.pop(0) if method == "GET" and faults.truncate else None
                if method == "GET" and faults.corrupt:
                    faults.corrupt -= 1
                    middle = len(data) // 2
                    data = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
            if method == "GET" and faults.delay:
                threading.Event().wait(faults.delay)
            start, code = 0, 200
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if wanted and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
                start, code = int(wanted[1]), 206
                if start >= len(data):
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    return
                headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self.send_response(code)
            for name, value in {**headers, "Accept-Ranges": "bytes"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if method == "GET":
                body = data[start:]
                self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.close_connection = True

        # Writing

        def write_api(self, path: str, body: bytes) -> None:
            if path.startswith("/upload/"):
                server.uploads[path.removeprefix("/upload/")] = body
                self.answer(200, b"")
                return
            if self.headers.get("Authorization") != "Bearer hf_writer":
                self.answer(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
                return
            if path == "/api/repos/create":
                request = json.loads(body)
                repo = (
                    f"{request['organization']}/{request['name']}"
                    if request.get("organization")
                    else request["name"]
                )
                exists = repo in server.repos
                if not exists:
                    server.repos[repo].private = "private" in (
                        request.get("visibility"),
                        request.get("private") and "private",
                    )
                self.answer_json({"url": f"{server.url}/{repo}", "name": repo}, 409 if exists else 200)
            elif path == "/api/validate-yaml":
                self.answer_json({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for f in json.loads(body)["files"]
                ]
                self.answer_json({"files": files})
            elif path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {**o, "actions": {"upload": {"href": f"{server.url}/upload/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                self.answer_json({"transfer": "basic", "objects": objects})
            elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
                self.commit(found[1], [json.loads(line) for line in body.splitlines()])
            else:
                self.answer(404, b"no such route")

        def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
            files: dict[str, bytes] = {}
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = server.uploads[value["oid"]]
            sha = server.repos[repo].commit(files, lines[0]["value"]["summary"])
            self.answer_json({"commitUrl": f"{server.url}/{repo}/commit/{sha}", "commitOid": sha})

        def answer_json(self, value: object, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler

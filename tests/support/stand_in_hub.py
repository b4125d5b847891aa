"""A server on this machine that speaks the Hub's protocol, as far as a Space and a model need it.

As on the Hub, large files are put in a store by their SHA-256, and a commit that names one which is
not there is refused; a commit happens as a whole or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "stand" * 7
LARGE = 100_000  # bytes; on the Hub it is 10 MB


@dataclass
class StandInSpace:
    """A Space as the Hub keeps it."""

    sdk: str = "gradio"
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    commits: int = 0


class StandInHub(ThreadingHTTPServer):
    """Spaces by name, the store of large files, and a log of what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.spaces: dict[str, StandInSpace] = {}
        self.models: dict[str, bytes] = {}  # USER/NAME to its model.safetensors
        self.store: dict[str, bytes] = {}  # SHA-256 to content
        self.log: list[str] = []
        self.writable = "me"  # whose Spaces the token may change
        self.largest = 10_000_000  # bytes of a file
        self.holds_after: int | None = None  # large files after which no more is read
        self.held = threading.Event()  # set when it holds one
        self.begun, self.lock = 0, threading.Lock()
        self.broken = 0  # status of every answer to a commit, if not 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.endswith("/resolve/main/model.safetensors"):
            return self._model(self.path.removesuffix("/resolve/main/model.safetensors")[1:])
        return self._answered()

    def _model(self, name: str) -> None:
        self.server.log.append(f"{self.command} {self.path}")
        content = self.server.models.get(name)
        if content is None:
            return self._say(404, {"error": "Repository not found"})
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_POST(self) -> None:
        self._answered()

    def do_PUT(self) -> None:
        hub, oid = self.server, self.path.rsplit("/", 1)[-1]
        hub.log.append(f"PUT {self.path}")
        with hub.lock:  # several come at once
            hub.begun += 1
            held = hub.holds_after is not None and hub.begun > hub.holds_after
        if held:
            hub.held.set()
            threading.Event().wait()  # until the test ends
        content = self._body()
        if hashlib.sha256(content).hexdigest() != oid:
            return self._say(400, {"error": "This is another file."})
        hub.store[oid] = content
        return self._say(200, {})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _say(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        if isinstance(answer, dict) and "error" in answer:
            self.send_header("X-Error-Message", answer["error"])
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answered(self) -> None:
        self.server.log.append(f"{self.command} {self.path}")
        self._say(*self._answer(self.path.split("?")[0], self._body()))

    def _answer(self, path: str, body: bytes) -> tuple[int, Any]:
        hub = self.server
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        name = "/".join(path.removeprefix("/api").split("/")[2:4]).removesuffix(".git")
        space = hub.spaces.get(name)
        if space is None:
            return 404, {"error": "Repository not found"}
        if self.command == "GET":
            files = [{"rfilename": file} for file in space.files]
            shown = {"id": name, "sdk": space.sdk, "private": space.private, "siblings": files}
            return 200, shown
        if not name.startswith(f"{hub.writable}/"):
            return 403, {"error": "You have no write access"}
        if path.endswith("/secrets"):
            secret = json.loads(body)
            space.secrets[secret["key"]] = secret["value"]
            return 200, {}
        if path.endswith("/preupload/main"):
            return 200, {"files": [_mode(space, file) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"objects": [self._wanted(o) for o in json.loads(body)["objects"]]}
        if path.endswith("/commit/main"):
            return self._commit(name, space, [json.loads(line) for line in body.splitlines()])
        return 400, {"error": f"The stand-in knows no {path}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.spaces:
            return 409, {"error": "You already created this space repo"}
        if asked["organization"] != self.server.writable:
            return 403, {"error": f"You have no rights in the namespace {asked['organization']}"}
        private = asked.get("private", False) or asked.get("visibility") == "private"
        self.server.spaces[name] = StandInSpace(asked["sdk"], private, {".gitattributes": b""})
        return 200, {"url": f"{self.server.url}/spaces/{name}"}

    def _wanted(self, thing: dict[str, Any]) -> dict[str, Any]:
        """What is still to be sent of a large file."""
        if thing["size"] > self.server.largest:
            return {**thing, "error": {"code": 413, "message": "This file is too large"}}
        if thing["oid"] in self.server.store:
            return thing
        place = {"href": f"{self.server.url}/store/{thing['oid']}"}
        return {**thing, "actions": {"upload": place}}

    def _commit(self, name: str, space: StandInSpace, lines: list[dict]) -> tuple[int, Any]:
        if self.server.broken:
            return self.server.broken, {"error": "Out of order"}
        files = dict(space.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.store:
                    return 400, {"error": f"{value['path']} was never sent"}
                files[value["path"]] = self.server.store[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        space.files, space.commits = files, space.commits + 1
        url = f"{self.server.url}/spaces/{name}/commit/{space.commits:040x}"
        answer = {"commitUrl": url, "commitOid": f"{space.commits:040x}", "pullRequestUrl": None}
        return 200, answer


def _mode(space: StandInSpace, file: dict[str, Any]) -> dict[str, Any]:
    """How a file is to be sent, and what the Space has under its name, by git's hash of it."""
    old = space.files.get(file["path"])
    large = file["size"] > LARGE
    oid = None
    if old is not None:
        head = b"" if large else f"blob {len(old)}\0".encode()
        oid = (hashlib.sha256 if large else hashlib.sha1)(head + old).hexdigest()
    mode = "lfs" if large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

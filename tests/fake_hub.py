"""A hub on the loopback interface that serves one folder as `owner/tiny`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + 34 * "0"


class FakeHub(ThreadingHTTPServer):
    """Answers the requests that huggingface_hub makes for a snapshot; `asked` are their paths."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []

    def environment(self, home: Path) -> dict[str, str]:
        """Settings that make huggingface_hub use this server and a cache below `home`."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}", "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0",
        }  # fmt: skip


@contextmanager
def fake_hub(folder: Path) -> Iterator[FakeHub]:
    """A running hub."""
    server = FakeHub(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if path.startswith("/api/models/owner/gated") or path.startswith("/api/models/owner/none"):
            kind = "GatedRepo" if "gated" in path else "RepoNotFound"
            self._answer(403 if "gated" in path else 404, b"{}", {"X-Error-Code": kind})
        elif path.startswith("/api/models/owner/tiny/revision/v9"):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/models/owner/tiny/revision/"):
            siblings = [{"rfilename": f["path"]} for f in self._files()]
            self._answer_json({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings})
        elif path.startswith("/api/models/owner/tiny/tree/"):
            self._answer_json(self._files())
        elif path.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
            content = (self.server.folder / path.rpartition("/")[2]).read_bytes()
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"", {})

    do_HEAD = do_GET

    def _files(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.server.folder.iterdir()):
            content = path.read_bytes()
            oid = hashlib.sha1(content).hexdigest()
            found.append({"type": "file", "path": path.name, "size": len(content), "oid": oid})
        return found

    def _answer_json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

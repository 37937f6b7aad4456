"""A stand-in for the Hub: of its HTTP API, what `huggingface_hub` calls to write and read a model repository.

Repositories with branches and commits; small files inside commits, safetensors through Git LFS; ranges and
ETags. The answers' fields and headers are those that `huggingface_hub` reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Files = dict[str, bytes]


@dataclass
class Repo:
    """refs: branch → commit. commits: each one's files. messages: of the commits, the oldest first."""

    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files, message: str) -> str:
        self.messages.append(message)
        name = hashlib.sha1(f"{message} {len(self.commits)}".encode()).hexdigest()
        self.commits[name], self.refs[branch] = files, name
        return name

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class StandIn:
    """users: token → name. repos: by `owner/name`. requests: "METHOD path" of each, and its Range.

    break_after: for a file's name, bytes after which the connection ends, once each. status: what every
    request gets instead, if it is set.
    """

    def __init__(self) -> None:
        self.url = ""
        self.users = {"hf_mine": "me"}
        self.repos: dict[str, Repo] = {}
        self.objects: Files = {}
        self.requests: list[tuple[str, str | None]] = []
        self.break_after: dict[str, list[int]] = {}
        self.status: int | None = None

    def add(self, name: str, files: Files, *, private: bool = False) -> Repo:
        """A repository with these files in its main branch."""
        self.repos[name] = repo = Repo(private)
        repo.commit("main", files, "initial commit")
        return repo

    def files(self, name: str, revision: str = "main") -> Files:
        """What a repository holds."""
        repo = self.repos[name]
        return repo.commits[repo.resolve(revision) or ""]


class Refused(Exception):
    """A status, and the Hub's code and message for it."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status)
        self.status, self.code, self.message = status, code, message


class Api:
    """What the Hub answers; no HTTP here. user: who asks, None if that is not known."""

    def __init__(self, hub: StandIn, user: str | None) -> None:
        self.hub, self.user = hub, user

    def repo(self, name: str, *, to_write: bool = False) -> Repo:
        repo = self.hub.repos.get(name)
        mine = name.split("/")[0] == self.user
        if repo is None or (repo.private and not mine):
            raise Refused(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if to_write and not mine:
            raise Refused(403 if self.user else 401, "", "You have no write access to this repository")
        return repo

    def at(self, name: str, revision: str) -> tuple[str, Files]:
        repo = self.repo(name)
        commit = repo.resolve(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repo.commits[commit]

    def whoami(self) -> dict[str, Any]:
        if self.user is None:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return {"type": "user", "name": self.user, "orgs": []}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        owner = body.get("organization") or self.user
        name = f"{owner}/{body['name']}"
        if self.user is None:
            raise Refused(401, "", "Invalid username or password.")
        if owner != self.user:
            raise Refused(403, "", f"You don't have the rights to create a model under the namespace {owner}")
        if name in self.hub.repos:
            raise Refused(409, "", "You already created this model repo")
        private = body.get("visibility") == "private" or bool(body.get("private"))
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return {"name": name, "url": f"{self.hub.url}/{name}"}

    def info(self, name: str, revision: str = "main") -> dict[str, Any]:
        commit, files = self.at(name, revision)
        card = yaml.safe_load(
            files.get("README.md", b"").decode().partition("---\n")[2].partition("---\n")[0]
        )
        siblings = [{"rfilename": path} for path in files]
        return {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "cardData": card,
                "private": self.repo(name).private, "tags": []}  # fmt: skip

    def tree(self, name: str, revision: str) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": git_hash(content),
                **large(path, content),
            }
            for path, content in self.at(name, revision)[1].items()
        ]

    def preupload(self, name: str, revision: str, body: dict[str, Any]) -> dict[str, Any]:
        self.repo(name, to_write=True)
        there = self.at(name, revision)[1]
        return {"files": [
            {"path": one["path"], "uploadMode": "lfs" if is_large(one["path"]) else "regular",
             "shouldIgnore": False, "oid": oid(one["path"], there.get(one["path"]))}
            for one in body["files"]
        ]}  # fmt: skip

    def batch(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.repo(name, to_write=True)
        upload = lambda one: {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}  # noqa: E731
        return {"transfer": "basic", "objects": [
            {**one, **({} if one["oid"] in self.hub.objects else {"actions": upload(one)})}
            for one in body["objects"]
        ]}  # fmt: skip

    def commit(self, name: str, revision: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        repo = self.repo(name, to_write=True)
        files, message = dict(self.at(name, revision)[1]), ""
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    raise AssertionError(other)
        made = repo.commit(revision, files, message)
        return {"success": True, "commitOid": made, "commitUrl": f"{self.hub.url}/{name}/commit/{made}"}

    def branch(self, name: str, branch: str) -> dict[str, Any]:
        repo = self.repo(name, to_write=True)
        repo.refs[branch] = repo.refs["main"]
        return {}


def validate_card(body: dict[str, Any]) -> dict[str, Any]:
    try:
        data = yaml.safe_load(body["content"].partition("---\n")[2].partition("---\n")[0]) or {}
    except yaml.YAMLError as error:
        raise Refused(400, "", "invalid YAML") from error
    if "/" not in data.get("base_model", "/"):
        raise Refused(400, "", '"base_model" must be a valid model id')
    return {"errors": [], "warnings": []}


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def oid(path: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    return hashlib.sha256(content).hexdigest() if is_large(path) else git_hash(content)


def large(path: str, content: bytes) -> dict[str, Any]:
    facts = {"oid": oid(path, content), "size": len(content), "pointerSize": 134}
    return {"lfs": facts} if is_large(path) else {}


def _handler(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        do_HEAD = do_POST = do_PUT = do_GET

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            hub.requests.append((f"{self.command} {urlsplit(self.path).path}", self.headers.get("range")))
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            try:
                if hub.status is not None:
                    raise Refused(hub.status, "", "out of order")
                self._route(Api(hub, hub.users.get(token)), body)
            except Refused as refused:
                url = f"{hub.url}/me/x"
                content = json.dumps(
                    {"error": refused.message, "errors": [{"message": refused.message}], "url": url}
                )
                said = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
                self._send(refused.status, content.encode(), {name: one for name, one in said.items() if one})

        def _route(self, api: Api, body: bytes) -> None:
            path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            match self.command, path:
                case "GET", ["api", "whoami-v2"]:
                    self._json(api.whoami())
                case "POST", ["api", "repos", "create"]:
                    self._json(api.create(json.loads(body)))
                case "POST", ["api", "validate-yaml"]:
                    self._json(validate_card(json.loads(body)))
                case "GET", ["api", "models", owner, name]:
                    self._json(api.info(f"{owner}/{name}"))
                case "GET", ["api", "models", owner, name, "revision", revision]:
                    self._json(api.info(f"{owner}/{name}", revision))
                case "GET", ["api", "models", owner, name, "tree", revision]:
                    self._json(api.tree(f"{owner}/{name}", revision))
                case "POST", ["api", "models", owner, name, "preupload", revision]:
                    self._json(api.preupload(f"{owner}/{name}", revision, json.loads(body)))
                case "POST", [owner, name, "info", "lfs", "objects", "batch"]:
                    self._json(api.batch(f"{owner}/{name.removesuffix('.git')}", json.loads(body)))
                case "PUT", ["objects", sha256]:
                    assert hashlib.sha256(body).hexdigest() == sha256
                    hub.objects[sha256] = body
                    self._send(200, b"", {})
                case "POST", ["api", "models", owner, name, "commit", revision]:
                    lines = [json.loads(line) for line in body.splitlines()]
                    self._json(api.commit(f"{owner}/{name}", revision, lines))
                case "POST", ["api", "models", owner, name, "branch", branch]:
                    self._json(api.branch(f"{owner}/{name}", branch))
                case (("GET" | "HEAD"), [owner, name, "resolve", revision, *parts]):
                    self._file(api, f"{owner}/{name}", revision, "/".join(parts))
                case _:
                    raise Refused(404, "", "no such route")

        def _file(self, api: Api, name: str, revision: str, path: str) -> None:
            commit, files = api.at(name, revision)
            if path not in files:
                raise Refused(404, "EntryNotFound", "Entry not found")
            content = files[path]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(path, content)}"', "Accept-Ranges": "bytes"}
            if is_large(path):
                headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
            start = int((self.headers.get("range") or "bytes=0-")[6:].split("-")[0])
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            cuts = hub.break_after.get(path, []) if self.command == "GET" else []
            self._send(206 if start else 200, content[start:], headers, cuts.pop(0) if cuts else None)

        def _json(self, content: Any) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[StandIn]:
    """The stand-in while it runs."""
    hub = StandIn()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()

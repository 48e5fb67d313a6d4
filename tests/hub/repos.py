"""Repositories of the Hub: what is in them, how it gets there and back. Large and binary files go the way of LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml

from .server import Answer, Commit, HubError, Repo, Request, Routes, json_answer

if TYPE_CHECKING:
    from .server import Hub

KINDS = "{kind:models|datasets|spaces}/{owner}/{name}"
PAGE = 20
"""Entries of a listing per answer; the Hub has more, a client must follow the link in either case."""

routes = Routes()


def is_large(content: bytes) -> bool:
    """Say whether the Hub keeps this outside git: binary content does not fit into it."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return b"\0" in content


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def oid_of(content: bytes) -> str:
    return sha256(content) if is_large(content) else git_oid(content)


def stored(hub: Hub) -> dict[str, bytes]:
    """What was uploaded as a large file, by its SHA-256."""
    return hub.__dict__.setdefault("large_files", {})


def at_revision(repo: Repo, revision: str) -> None:
    """The stand-in keeps the newest commit only."""
    if revision not in ("main", repo.head):
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@routes.on("POST", "/api/validate-yaml", body={"content", "repoType"})
def validate_yaml(hub: Hub, request: Request) -> Answer:
    errors = [{"message": error} for error in card_errors(request.json()["content"], request.json()["repoType"])]
    return json_answer({"errors": errors, "warnings": []}, 400 if errors else 200)


def card_errors(content: str, kind: str) -> list[str]:
    """What the Hub would refuse of a card."""
    if not content.startswith("---\n"):
        return []
    try:
        front: Any = yaml.safe_load(content.removeprefix("---\n").partition("\n---\n")[0])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(front, dict):
        return ["the front matter is no mapping"]
    if kind == "space":
        sdks = ("docker", "gradio", "static")
        return [] if front.get("sdk") in sdks else [f'"sdk" must be one of {", ".join(sdks)}']
    names = [config.get("config_name") for config in front.get("configs", [])]
    errors = [] if len(names) == len(set(names)) else ['"configs" holds a name twice']
    files = [file for config in front.get("configs", []) for file in config["data_files"]]
    return errors if all({"split", "path"} == set(file) for file in files) else [*errors, '"data_files" is malformed']


@routes.on("POST", f"/api/{KINDS}/preupload/{{revision}}", body={"files", "gitIgnore"})
def preupload(hub: Hub, request: Request, kind: str, owner: str, name: str, revision: str) -> Answer:
    repo = hub.writable(request, kind[:-1], f"{owner}/{name}")
    at_revision(repo, revision)
    entries: list[dict[str, Any]] = []
    for file in request.json()["files"]:
        assert set(file) == {"path", "sample", "size"}, file
        current = repo.files.get(file["path"])
        mode = "lfs" if is_large(base64.b64decode(file["sample"])) or file["size"] > 10 << 20 else "regular"
        oid = None if current is None else oid_of(current)
        entries.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return json_answer({"files": entries})


@routes.on(
    "POST",
    "/{kind:datasets|spaces}/{owner}/{name}.git/info/lfs/objects/batch",
    body={"operation", "transfers", "objects", "hash_algo", "ref"},
)
def batch(hub: Hub, request: Request, kind: str, owner: str, name: str) -> Answer:
    hub.writable(request, kind[:-1], f"{owner}/{name}")
    body = request.json()
    assert (body["operation"], body["hash_algo"]) == ("upload", "sha256")
    objects: list[dict[str, Any]] = []
    for blob in body["objects"]:
        entry: dict[str, Any] = {"oid": blob["oid"], "size": blob["size"]}
        if blob["oid"] not in stored(hub):
            entry["actions"] = {
                "upload": {"href": f"{hub.url}/large-upload/{blob['oid']}"},
                "verify": {"href": f"{hub.url}/api/{kind}/{owner}/{name}/large-verify"},
            }
        objects.append(entry)
    return json_answer({"transfer": "basic", "objects": objects})


@routes.on("PUT", "/large-upload/{oid}", body=None)
def upload(hub: Hub, request: Request, oid: str) -> Answer:
    """Another host than the Hub in truth: the token must not come here."""
    assert "authorization" not in request.headers
    if sha256(request.body) != oid:
        raise HubError(400, "the content is not what was announced")
    stored(hub)[oid] = request.body
    return Answer()


@routes.on("POST", f"/api/{KINDS}/large-verify", body={"oid", "size"})
def verify(hub: Hub, request: Request, kind: str, owner: str, name: str) -> Answer:
    hub.writable(request, kind[:-1], f"{owner}/{name}")
    if len(stored(hub)[request.json()["oid"]]) != request.json()["size"]:
        raise HubError(422, "the size is not what was announced")
    return json_answer({})


@routes.on("POST", f"/api/{KINDS}/commit/{{revision}}", body=None)
def commit(hub: Hub, request: Request, kind: str, owner: str, name: str, revision: str) -> Answer:
    repo = hub.writable(request, kind[:-1], f"{owner}/{name}")
    assert revision == "main"
    assert request.headers["content-type"] == "application/x-ndjson"
    header, *operations = (json.loads(line) for line in request.body.splitlines())
    assert header["key"] == "header"
    if header["value"].get("parentCommit", repo.head) != repo.head:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repo.files)
    for operation in operations:
        change(hub, files, operation["key"], operation["value"])
    repo.files = files
    oid = hashlib.sha1(request.body + repo.head.encode()).hexdigest()
    repo.commits.append(Commit(oid, header["value"]["summary"], time.time()))
    hub.committed(repo)
    url = f"{hub.url}/{kind}/{repo.id}/commit/{oid}"
    return json_answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def change(hub: Hub, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    if key == "file":
        assert value["encoding"] == "base64"
        files[path] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        assert value["algo"] == "sha256"
        files[path] = stored(hub)[value["oid"]]
    elif key == "deletedFile":
        del files[path]
    elif key == "deletedFolder":
        removed_paths = [one for one in files if one.startswith(f"{path.rstrip('/')}/")]
        assert removed_paths
        for removed_path in removed_paths:
            del files[removed_path]
    else:
        raise AssertionError(f"unknown operation {key}")


@routes.on("GET", f"/api/{KINDS}/tree/{{revision}}", query={"recursive", "expand", "cursor"})
def tree(hub: Hub, request: Request, kind: str, owner: str, name: str, revision: str) -> Answer:
    repo = hub.repo(request, kind[:-1], f"{owner}/{name}")
    at_revision(repo, revision)
    assert request.query["recursive"][0].lower() == "true"
    folders = {"/".join(path.split("/")[:depth]) for path in repo.files for depth in range(1, path.count("/") + 1)}
    entries = sorted([*repo.files, *folders])
    start = int(request.query.get("cursor", ["0"])[0])
    headers: dict[str, str] = {}
    if len(entries) > start + PAGE:
        next_page = f"{hub.url}{request.path}?recursive=True&expand=False&cursor={start + PAGE}"
        headers["Link"] = f'<{next_page}>; rel="next"'
    return json_answer([described(path, repo.files.get(path)) for path in entries[start : start + PAGE]], 200, headers)


def described(path: str, content: bytes | None) -> dict[str, Any]:
    if content is None:
        return {"type": "directory", "path": path, "oid": git_oid(path.encode()), "size": 0}
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(content):
        # What git holds is a pointer, so that its own id says nothing of the content.
        entry["oid"] = git_oid(b"pointer to " + content)
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return entry


@routes.on("GET", "/api/datasets/{owner}/{name}", query={"blobs"})
@routes.on("GET", "/api/datasets/{owner}/{name}/revision/{revision}", query={"blobs"})
def dataset(hub: Hub, request: Request, owner: str, name: str, revision: str = "main") -> Answer:
    repo = hub.repo(request, "dataset", f"{owner}/{name}")
    at_revision(repo, revision)
    siblings = [{"rfilename": path} for path in repo.files]
    details = {"_id": "1", "id": repo.id, "author": owner, "private": repo.private, "gated": False, "disabled": False}
    return json_answer({**details, "sha": repo.head, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})


@routes.on("HEAD", "/{kind:datasets|spaces}/{owner}/{name}/resolve/{revision}/{path:*}")
@routes.on("GET", "/{kind:datasets|spaces}/{owner}/{name}/resolve/{revision}/{path:*}")
def resolve(hub: Hub, request: Request, kind: str, owner: str, name: str, revision: str, path: str) -> Answer:
    repo = hub.repo(request, kind[:-1], f"{owner}/{name}")
    at_revision(repo, revision)
    headers = {"X-Repo-Commit": repo.head}
    if path not in repo.files:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    content = repo.files[path]
    if not is_large(content):
        return Answer(200, content, {**headers, "ETag": f'"{git_oid(content)}"'})
    stored(hub)[sha256(content)] = content
    linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
    # Another host, as the Hub's storage is one.
    elsewhere = hub.url.replace("127.0.0.1", "localhost")
    return Answer(302, b"", {**headers, **linked, "Location": f"{elsewhere}/large/{quote(sha256(content))}"})


@routes.on("HEAD", "/large/{oid}")
@routes.on("GET", "/large/{oid}")
def large(hub: Hub, request: Request, oid: str) -> Answer:
    assert "authorization" not in request.headers
    return Answer(200, stored(hub)[oid], {"ETag": f'"{oid}"'})

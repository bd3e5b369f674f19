"""Hubs, asked over real sockets: a server on loopback that lists, redirects, stumbles, lies and goes away."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.artifacts.network import UrlRules
from argosy.artifacts.progress import ProgressMeter
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.sources import Errand, Pulled
from argosy.artifacts.sources.https import url_rules
from argosy.artifacts.sources.hub import hub_rules, pull_repository
from argosy.artifacts.store import ModelStore
from argosy.artifacts.web import WebClient
from argosy.core.errors import ArtifactError, Forbidden, SpecError
from argosy.core.network import NetworkSettings

Make = Callable[..., bytes]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub with files. faults: answers to give once each, before the true one, per path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}
        self.faults: dict[str, list[Any]] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.honours_ranges = True
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def listing(self) -> bytes:
        rows = []
        for name, content in self.files.items():
            row: dict[str, Any] = {"rfilename": name, "size": len(content)}
            row["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if name.endswith((".gguf", ".safetensors")):
                digest = self.digests.get(name, hashlib.sha256(content).hexdigest())
                row["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            rows.append(row)
        return msgspec.json.encode({"sha": COMMIT, "siblings": rows})

    def modelscope_listing(self) -> bytes:
        rows = [
            {"Path": name, "Type": "blob", "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
            for name, content in self.files.items()
        ]
        return msgspec.json.encode({"Code": 200, "Data": {"Files": [{"Path": "dir", "Type": "tree"}, *rows]}})

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append((request.path, request.headers["range"], request.headers["authorization"]))
        name = path.rsplit("/", 1)[-1]
        if path.endswith("/repo") and "FilePath=" in request.path:
            name = request.path.rpartition("FilePath=")[2]
        faults = self.faults.get(name, [])
        fault = faults.pop(0) if faults else None
        if callable(fault):
            fault(request)
        elif isinstance(fault, tuple):
            self.send(request, *fault)
        elif path.startswith("/api/models/"):
            self.send(request, 200, {}, self.listing())
        elif path.endswith("/repo/files"):
            self.send(request, 200, {}, self.modelscope_listing())
        elif name in self.files:
            self.send_file(request, self.files[name], cut=fault)
        else:
            self.send(request, 404, {}, b"")

    def send_file(self, request: BaseHTTPRequestHandler, content: bytes, cut: int | None) -> None:
        """The file or the range of it that is asked for; `cut` bytes of it and then a closed line."""
        status, headers, asked = 200, {"etag": '"tag"'}, request.headers["range"]
        if asked and self.honours_ranges:
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            headers["content-range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self.send(request, status, headers, content, cut)

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes,
        cut: int | None = None,
    ) -> None:
        request.send_response(status)
        for name, content in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name, content)
        request.end_headers()
        request.wfile.write(body[:cut])
        if cut is not None:
            request.close_connection = True


@pytest.fixture
def hub(make_gguf: Make) -> Iterator[Hub]:
    made = Hub()
    made.files["model.gguf"] = make_gguf() + bytes(range(256)) * 64  # some data no tensor names, for several ranges
    thread = threading.Thread(target=made.server.serve_forever, name="hub")
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


class Puller:
    """Pulls from the hub with a clock of its own."""

    def __init__(self, hub: Hub, store: ModelStore) -> None:
        self.hub, self.store, self.pauses = hub, store, list[float]()
        self.settings = NetworkSettings(
            hf_endpoint=hub.url,
            ms_endpoint=hub.url,
            allow_private_addresses=True,
            range_bytes=4096,
            num_connections=3,
            num_attempts=3,
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def pull(self, text: str = "hf:org/model", token: str | None = None, **changes: Any) -> Pulled:
        network = msgspec.structs.replace(self.settings, **changes)
        errand = Errand(
            ref=parse_model_ref(text),
            entry=None,
            blobs=self.store.blobs,
            meter=ProgressMeter(),
            allow_sources=(),
            network=network,
        )
        async with WebClient(hub_rules(errand.ref, network), network, sleep=self.sleep) as client:
            return await pull_repository(errand, client, token)


@pytest.fixture
def puller(hub: Hub, store: ModelStore) -> Puller:
    return Puller(hub, store)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


pytestmark = pytest.mark.anyio


async def test_repository_is_pulled_in_ranges_at_one_commit(hub: Hub, puller: Puller) -> None:
    pulled = await puller.pull(token="secret")
    assert str(pulled.resolved) == f"hf:org/model@{COMMIT}"
    assert puller.store.blobs.path(pulled.contents["model.gguf"]).read_bytes() == hub.files["model.gguf"]
    asked = [row for row in hub.asked if "resolve" in row[0]]
    assert len(asked) == -(-len(hub.files["model.gguf"]) // 4096)
    assert all(COMMIT in path and authorization == "Bearer secret" for path, _, authorization in asked)
    assert list(puller.store.blobs.partial.iterdir()) == []


async def test_modelscope_is_pulled_the_same_way(hub: Hub, puller: Puller) -> None:
    pulled = await puller.pull("ms:org/model@v1", token="secret")
    assert puller.store.blobs.path(pulled.contents["model.gguf"]).read_bytes() == hub.files["model.gguf"]
    assert all(authorization is None for _, _, authorization in hub.asked)


async def test_checkpoint_comes_with_its_companions_and_without_code(
    hub: Hub, puller: Puller, hf_directory: Path
) -> None:
    hub.files = contents(hf_directory)
    hub.files |= {"modeling_evil.py": b"1/0", "pytorch_model.bin": b"pickle", "README.md": b"", "../x.json": b""}
    pulled = await puller.pull()
    assert set(pulled.contents) == {"config.json", "model.safetensors", "tokenizer.json"}


async def test_d04_repository_of_pickles_is_refused_before_any_download(hub: Hub, puller: Puller) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(SpecError, match="pickle"):
        await puller.pull()
    assert len(hub.asked) == 1


async def test_one_of_many_models_must_be_named(hub: Hub, puller: Puller, make_gguf: Make) -> None:
    hub.files = {"a-q4.gguf": make_gguf(), "a-q8.gguf": make_gguf(salt=1)}
    with pytest.raises(SpecError, match=r"name one: hf:org/model/a-q4\.gguf, hf:org/model/a-q8\.gguf"):
        await puller.pull()
    assert set((await puller.pull("hf:org/model/a-q8.gguf")).contents) == {"a-q8.gguf"}


@pytest.mark.parametrize("fault", [(429, {"retry-after": "7"}, b""), (503, {}, b""), (500, {}, b"")])
async def test_passing_faults_are_retried_after_a_pause(hub: Hub, puller: Puller, fault: Any) -> None:
    hub.faults = {"model.gguf": [fault, fault], "main": [fault]}
    pulled = await puller.pull()
    assert puller.store.blobs.has(pulled.contents["model.gguf"])
    assert len(puller.pauses) == 3
    assert all(pause == 7.0 for pause in puller.pauses) if fault[0] == 429 else max(puller.pauses) <= 2.0


async def test_lasting_faults_end_in_a_retryable_error(hub: Hub, puller: Puller) -> None:
    hub.faults = {"model.gguf": [(503, {}, b"")] * 50}
    with pytest.raises(ArtifactError, match=r"503.*gave up after 3 tries") as caught:
        await puller.pull()
    assert caught.value.retryable


@pytest.mark.parametrize(("status", "remedy"), [(401, "HF_TOKEN"), (403, "accept"), (404, "check the reference")])
async def test_refusals_of_the_hub_say_what_to_do(hub: Hub, puller: Puller, status: int, remedy: str) -> None:
    hub.faults = {"main": [(status, {}, b"")]}
    with pytest.raises(ArtifactError, match=remedy):
        await puller.pull()
    assert puller.pauses == []


async def test_cut_answers_go_on_where_they_stopped(hub: Hub, puller: Puller) -> None:
    hub.faults = {"model.gguf": [1000, 500]}
    pulled = await puller.pull()
    assert puller.store.blobs.path(pulled.contents["model.gguf"]).read_bytes() == hub.files["model.gguf"]
    assert "bytes=1000-4095" in [asked for _, asked, _ in hub.asked]


async def test_interrupted_pull_resumes_with_what_is_missing(hub: Hub, puller: Puller) -> None:
    hub.faults = {"model.gguf": [None, None, *[(503, {}, b"")] * 50]}
    with pytest.raises(ArtifactError):
        await puller.pull(num_connections=1)
    hub.faults, hub.asked = {}, []
    pulled = await puller.pull()
    first_asked = {asked for path, asked, _ in hub.asked if "resolve" in path}
    assert "bytes=0-4095" not in first_asked
    assert "bytes=8192-12287" in first_asked
    assert puller.store.blobs.path(pulled.contents["model.gguf"]).read_bytes() == hub.files["model.gguf"]


async def test_server_without_ranges_is_read_in_one_go(hub: Hub, puller: Puller) -> None:
    hub.honours_ranges = False
    pulled = await puller.pull()
    assert puller.store.blobs.path(pulled.contents["model.gguf"]).read_bytes() == hub.files["model.gguf"]
    assert len([path for path, _, _ in hub.asked if "resolve" in path]) == 2


async def test_d12_wrong_digest_is_thrown_away(hub: Hub, puller: Puller) -> None:
    hub.digests["model.gguf"] = "0" * 64
    with pytest.raises(ArtifactError, match="must have sha256:000"):
        await puller.pull()
    assert puller.store.blobs.digests() == {}
    assert list(puller.store.blobs.partial.iterdir()) == []


async def test_d12_small_file_must_match_its_git_id(hub: Hub, puller: Puller, hf_directory: Path) -> None:
    hub.files = contents(hf_directory)
    size = len(hub.files["config.json"])
    hub.faults = {"config.json": [(200, {}, b"x" * size)]}
    with pytest.raises(ArtifactError, match="git id"):
        await puller.pull()


async def test_d03_body_longer_than_listed_is_refused(hub: Hub, puller: Puller, hf_directory: Path) -> None:
    hub.files = contents(hf_directory)
    hub.faults = {"config.json": [(200, {}, b"x" * 10_000)], "model.safetensors": [(200, {}, b"x" * 10_000)]}
    with pytest.raises(ArtifactError, match=r"longer than|must be"):
        await puller.pull()


async def test_d03_compressed_answer_is_refused(hub: Hub, puller: Puller) -> None:
    hub.faults = {"main": [(200, {"content-encoding": "gzip"}, b"x")]}
    with pytest.raises(ArtifactError, match="gzip-compressed"):
        await puller.pull()


@pytest.mark.parametrize("target", ["http://169.254.169.254/", "file:///etc/passwd", "https://evil.example/x"])
async def test_d02_redirect_off_the_list_is_refused(hub: Hub, puller: Puller, target: str) -> None:
    hub.faults = {"model.gguf": [(302, {"location": target}, b"")]}
    with pytest.raises(Forbidden):
        await puller.pull()


async def test_d02_endless_redirects_end(hub: Hub, puller: Puller) -> None:
    hub.faults = {"model.gguf": [(302, {"location": "/model.gguf"}, b"")] * 10}
    with pytest.raises(ArtifactError, match="redirects more than 3 times"):
        await puller.pull()


async def test_d02_token_stays_with_the_host_it_is_for(hub: Hub, puller: Puller) -> None:
    other = f"http://localhost:{hub.server.server_port}/model.gguf"
    hub.faults = {"model.gguf": [(302, {"location": other}, b"")]}
    rules = UrlRules(prefixes=(f"{hub.url}/", f"http://localhost:{hub.server.server_port}/"))
    async with (
        WebClient(rules, puller.settings) as client,
        client.get(f"{hub.url}/model.gguf", {"authorization": "Bearer secret"}) as response,
    ):
        assert response.status_code == 200
    assert [authorization for _, _, authorization in hub.asked] == ["Bearer secret", None]


async def test_d01_private_addresses_are_refused_by_default(hub: Hub, puller: Puller) -> None:
    with pytest.raises(Forbidden, match="not a public address"):
        await puller.pull(allow_private_addresses=False)
    assert hub.asked == []


async def test_d01_web_references_need_an_allowed_prefix() -> None:
    async with WebClient(url_rules(("s3://bucket/",)), NetworkSettings()) as client:
        with pytest.raises(Forbidden, match="--allow-source"):
            await client.json("https://models.example.com/x.gguf", {})

"""Which archives may be opened: names in the store, and URLs that a person allowed (D-01, D-02)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from argosy.core.errors import ArgosyError, Forbidden
from argosy.core.network import NetworkSettings
from argosy.server.torchserve.locations import ArchiveLocations

pytestmark = pytest.mark.anyio
ARCHIVE = b"PK\x03\x04 an archive"
LOCAL = NetworkSettings(allow_private_addresses=True, num_attempts=1)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "a.mar").write_bytes(ARCHIVE)
    (folder / "folder").mkdir()
    (folder / "notes.txt").write_text("")
    (folder / ".hidden.mar").write_text("")
    (tmp_path / "outside.mar").write_bytes(ARCHIVE)
    (folder / "link.mar").symlink_to(tmp_path / "outside.mar")
    (folder / "loop.mar").symlink_to(folder / "loop.mar")
    return folder


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A web server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def locations(store: Path, *allow: str, network: NetworkSettings = LOCAL) -> ArchiveLocations:
    return ArchiveLocations(store, store.parent / "root", allow, network)


async def test_names_are_archives_of_the_store(store: Path) -> None:
    assert locations(store).all() == ["a.mar", "folder", "link.mar", "loop.mar"]
    assert await locations(store).find("a.mar") == store / "a.mar"
    assert await locations(store).find(f"file://{store}/a.mar") == store / "a.mar"


@pytest.mark.parametrize(
    "url",
    [
        "", ".", "../outside.mar", "x/../../outside.mar", "/etc/passwd", "link.mar", "none.mar", "a\0.mar",
        "file:///etc/passwd", "file://host/etc/passwd", "file:///%2e%2e/etc/passwd", "FILE:///etc/passwd",
        "http://169.254.169.254/latest/a.mar", "http://localhost:1/a.mar", "http://[::1]/a.mar", "http://2130706433/a.mar",
        "http://0x7f.1/a.mar", "ftp://host/a.mar", "gopher://host/a.mar", "s3://bucket/a.mar",
        "http://models.example.com@evil.example/a.mar", "http://models.example.com.evil.example/a.mar",
        "https://models.example.com/mar/../other/a.mar", "https://models.example.com/other/a.mar",
        "loop.mar", "file://STORE/loop.mar", "file://STORE", "file://STORE/link.mar", "x" * 300, "http://[", "file://[x/",
    ],
)  # fmt: skip
async def test_d01_what_nobody_allowed_is_refused_before_anything_is_asked(store: Path, url: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        await locations(store, "https://models.example.com/mar/").find(url.replace("STORE", str(store)))
    assert caught.value.status in (400, 403, 404)


async def test_a_link_out_of_the_store_is_called_one(store: Path) -> None:
    with pytest.raises(ArgosyError, match="a link that leads out of the model store"):
        await locations(store).find("link.mar")


async def test_d01_an_allowed_name_that_leads_inside_is_refused(store: Path) -> None:
    with web(lambda _: None) as address, pytest.raises(Forbidden, match="not a public address"):
        await locations(store, f"{address}/", network=NetworkSettings(num_attempts=1)).find(f"{address}/a.mar")


async def test_d02_a_redirect_leads_no_further_than_the_list(store: Path) -> None:
    def elsewhere(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("location", "http://169.254.169.254/latest/a.mar")
        request.end_headers()

    with web(elsewhere) as address, pytest.raises(Forbidden, match="not on the allow-list"):
        await locations(store, f"{address}/").find(f"{address}/a.mar")


async def test_an_allowed_archive_is_fetched_under_its_own_name(store: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", str(len(ARCHIVE)))
        request.end_headers()
        request.wfile.write(ARCHIVE)

    with web(answer) as address:
        path = await locations(store, f"{address}/models/").find(f"{address}/models/far.mar")
        assert (path.name, path.read_bytes()) == ("far.mar", ARCHIVE)
        twice = [locations(store, f"{address}/").find(f"{address}/two.mar") for _ in range(2)]
        assert len(set(await asyncio.gather(*twice))) == 1
        with pytest.raises(ArgosyError, match="plain name"):
            await locations(store, f"{address}/").find(f"{address}/models/")


async def test_directories_outside_the_store_can_be_allowed(store: Path) -> None:
    outside = store.parent / "outside.mar"
    with pytest.raises(ArgosyError, match="does not match any allowed URL"):
        await locations(store).find(f"file://{outside}")
    assert await locations(store, f"file://{store.parent}/").find(f"file://{outside}") == outside

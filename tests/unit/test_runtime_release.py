"""The k3s file from a file, the cache, a mirror folder, and a server that misbehaves in every way."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from k3img.errors import BuildError
from k3img.profile.model import Arch
from k3img.runtime import download, release
from k3img.runtime.lock import LockedFile, RuntimeLock
from k3img.runtime.release import Artifact, Proof, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = "v1.36.3+k3s1"
STANDIN = "v1.36.3+standin1"


def elf(*texts: str, machine: int = 62, size: int = 300_000) -> bytes:
    """Bytes with the head of a 64-bit program and some texts in it."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little")
    body = head + bytes(64) + "\0".join(texts).encode()
    return body + bytes(i * 7 % 251 for i in range(size - len(body)))


K3S = elf(VERSION)
SHA = hashlib.sha256(K3S).hexdigest()
SUMS = f"{'1' * 64}  k3s-airgap-images-amd64.tar\n{SHA}  k3s\n".encode()


@dataclass
class Server:
    """What the test server has and how it behaves; `requests` are (path, headers) as they came."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"one"'
    status: int = 200
    cut: list[int] = field(default_factory=list)  # bytes after which each next answer breaks off
    hang: float = 0
    trickle: bool = False
    redirect: str = ""
    skew: int = 0

    @property
    def bodies(self) -> list[str]:
        return [path for path, _ in self.requests if path.endswith("/k3s")]


class Handler(BaseHTTPRequestHandler):
    server_version = "test"
    state: Server

    def do_GET(self) -> None:
        state = self.state
        state.requests.append((self.path, dict(self.headers)))
        if state.redirect and not self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", state.redirect + self.path)
            self.end_headers()
            return
        data = state.files.get(self.path.removeprefix("/moved"))
        is_body = self.path.endswith("/k3s")
        if data is None or (state.status != 200 and is_body):
            self.send_error(404 if data is None else state.status)
            return
        start = 0
        asked = self.headers.get("Range")
        if is_body and asked and state.ranges and self.headers.get("If-Range") == state.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + state.skew}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if state.etag:
            self.send_header("ETag", state.etag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if is_body and state.cut:
            body = body[: state.cut.pop(0)]
        if is_body and state.hang:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(state.hang)
            return
        step = 30_000 if state.trickle else len(body) or 1
        for offset in range(0, len(body), step):
            self.wfile.write(body[offset : offset + step])
            if state.trickle:
                time.sleep(0.05)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    folder = "/v1.36.3%2Bk3s1"
    state.files = {f"{folder}/k3s": K3S, f"{folder}/sha256sum-amd64.txt": SUMS}
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def get(cache: Path, **options: Any) -> Artifact:
    return resolve(options.pop("version", VERSION), options.pop("arch", Arch.X86_64), cache=cache, **options)


def lock(sha256: str = SHA, version: str = VERSION) -> RuntimeLock:
    return RuntimeLock(version=version, files={"amd64": LockedFile(file="k3s", sha256=sha256, source="x")})


def left_over(cache: Path) -> set[str]:
    """Names of files in the cache, but the empty ones that processes lock."""
    return {path.name for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


# --- over http


def test_a_release_is_downloaded_once_and_then_comes_from_the_cache(server: Server, tmp_path: Path) -> None:
    got = get(tmp_path, mirror=server.url)
    assert got.path.read_bytes() == K3S
    assert (got.sha256, got.proof, got.first_seen, got.standin) == (SHA, Proof.CHECKSUMS, True, False)
    assert got.source == f"{server.url}/v1.36.3%2Bk3s1/k3s"
    again = get(tmp_path, mirror=server.url, lock=lock())
    assert (again.path, again.proof, again.first_seen) == (got.path, Proof.LOCK, False)
    assert len(server.bodies) == 1
    assert left_over(tmp_path) == {"k3s"}


def test_the_release_itself_is_asked_for_at_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def text(url: str, *, hint: str = "") -> str:
        asked.append(url)
        raise BuildError("offline", hint=hint)

    monkeypatch.setattr(download, "text", text)
    with pytest.raises(BuildError, match="offline") as caught:
        get(tmp_path, arch=Arch.ARM64)
    assert asked == ["https://github.com/k3s-io/k3s/releases/download/v1.36.3%2Bk3s1/sha256sum-arm64.txt"]
    assert "--k3s FILE" in caught.value.hint
    assert "--k3s-mirror" in caught.value.hint


def test_a_damaged_cache_entry_is_fetched_again(server: Server, tmp_path: Path) -> None:
    got = get(tmp_path, mirror=server.url)
    got.path.write_bytes(K3S[:-1] + b"!")
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S


def test_404_says_so_and_what_to_do(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        get(tmp_path, version="v1.99.0+k3s1", mirror=server.url)
    assert "404" in caught.value.brief
    assert "--k3s FILE" in caught.value.hint
    assert not left_over(tmp_path)


def test_a_404_of_the_file_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    del server.files["/v1.36.3%2Bk3s1/k3s"]
    with pytest.raises(BuildError):
        get(tmp_path, mirror=server.url)
    assert len(server.bodies) == 1
    assert not left_over(tmp_path)


def test_a_server_that_is_overloaded_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(BuildError) as caught:
        get(tmp_path, mirror=server.url)
    assert "503" in caught.value.brief
    assert len(server.bodies) == download.TRIES


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 50_000]
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S
    asked = [headers.get("Range") for path, headers in server.requests if path.endswith("/k3s")]
    assert asked == [None, "bytes=100000-", "bytes=150000-"]
    assert left_over(tmp_path) == {"k3s"}


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [100_000]
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S


def test_always_truncated_fails_and_keeps_only_what_can_be_resumed(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [100_000] * 9
    with pytest.raises(BuildError, match="to its end") as caught:
        get(tmp_path, mirror=server.url)
    assert "0.1 of 0.3 MB" in caught.value.brief
    assert "run it again" in caught.value.hint
    assert left_over(tmp_path) == {"k3s.part", "k3s.part.json"}
    server.ranges, server.cut = True, []
    server.requests.clear()
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S
    assert server.requests[-1][1]["Range"] == "bytes=100000-"
    assert left_over(tmp_path) == {"k3s"}


def test_nothing_stays_of_a_server_that_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut = "", [100_000] * 9
    with pytest.raises(BuildError) as caught:
        get(tmp_path, mirror=server.url)
    assert "run it again" not in caught.value.hint
    assert not left_over(tmp_path)


def test_without_an_etag_a_whole_file_is_kept_all_the_same(server: Server, tmp_path: Path) -> None:
    server.etag = ""
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S


def test_a_piece_of_another_etag_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.cut = [10_000] * download.TRIES
    with pytest.raises(BuildError):
        get(tmp_path, mirror=server.url, lock=lock())
    server.etag = '"two"'
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S


def test_a_bad_first_piece_is_thrown_away_and_all_is_fetched(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "k3s" / SHA
    folder.mkdir(parents=True)
    (folder / "k3s.part").write_bytes(b"x" * 1000)
    note = {"url": f"{server.url}/v1.36.3%2Bk3s1/k3s", "validator": '"one"'}
    (folder / "k3s.part.json").write_text(json.dumps(note))
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S
    assert len(server.bodies) == 2
    assert left_over(tmp_path) == {"k3s"}


def test_a_piece_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "k3s" / SHA
    folder.mkdir(parents=True)
    (folder / "k3s.part").write_bytes(K3S + b"more")
    note = {"url": f"{server.url}/v1.36.3%2Bk3s1/k3s", "validator": '"one"'}
    (folder / "k3s.part.json").write_text(json.dumps(note))
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"url": 1}', '{"url": "http://other/k3s", "validator": "x"}']
)
def test_a_piece_that_nobody_knows_is_not_used(server: Server, tmp_path: Path, note: str) -> None:
    folder = tmp_path / "k3s" / SHA
    folder.mkdir(parents=True)
    (folder / "k3s.part").write_bytes(b"x" * 1000)
    (folder / "k3s.part.json").write_text(note)
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S
    assert "Range" not in server.requests[-1][1]


def test_the_wrong_part_of_a_file_is_not_appended(server: Server, tmp_path: Path) -> None:
    server.cut, server.skew = [100_000], 5
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S
    assert [headers.get("Range") for path, headers in server.requests if path.endswith("/k3s")] == [
        None,
        "bytes=100000-",
        None,
    ]


def test_a_wrong_hash_names_both_and_keeps_nothing(server: Server, tmp_path: Path) -> None:
    other = elf(VERSION, "another build")
    server.files["/v1.36.3%2Bk3s1/k3s"] = other
    with pytest.raises(BuildError, match="wrong sha256") as caught:
        get(tmp_path, mirror=server.url)
    assert SHA in caught.value.details
    assert hashlib.sha256(other).hexdigest() in caught.value.details
    assert not left_over(tmp_path)


def test_a_lock_with_another_hash_stops_a_good_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="wrong sha256") as caught:
        get(tmp_path, mirror=server.url, lock=lock("a" * 64))
    assert "lock" in caught.value.details
    assert SHA in caught.value.details


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.redirect, server.cut = f"{server.url}/moved", [100_000]
    got = get(tmp_path, mirror=server.url)
    assert got.path.read_bytes() == K3S
    assert got.source == f"{server.url}/v1.36.3%2Bk3s1/k3s"


def test_a_redirect_to_an_unencrypted_address_is_refused() -> None:
    request = urllib.request.Request("https://a/x")
    with pytest.raises(OSError, match="not encrypted"):
        download._NoDowngrade().redirect_request(request, None, 302, "", {}, "http://a/x")  # type: ignore[arg-type]


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        get(tmp_path, mirror="http://127.0.0.1:1")
    assert "connection refused" in caught.value.brief
    assert "--k3s FILE" in caught.value.hint


def test_a_server_that_hangs_is_given_up(server: Server, tmp_path: Path) -> None:
    server.hang = 1
    began = time.monotonic()
    with pytest.raises(BuildError) as caught:
        get(tmp_path, mirror=server.url)
    assert "sent nothing" in caught.value.brief
    assert time.monotonic() - began < 5


def test_a_slow_server_is_not(server: Server, tmp_path: Path) -> None:
    server.trickle = True  # longer in all than the time-out
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.trickle = True
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.append(get(tmp_path, mirror=server.url).path.read_bytes()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [K3S] * 3
    assert len(server.bodies) == 1


def test_a_full_disk_keeps_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(answer: Any, part: Path, *_: Any) -> None:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(part))

    monkeypatch.setattr(download, "_receive", receive)
    with pytest.raises(BuildError) as caught:
        get(tmp_path, mirror=server.url)
    assert "disk is full" in caught.value.brief
    assert not left_over(tmp_path)


def test_a_cache_that_is_no_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="cannot keep k3s in the cache"):
        get(tmp_path / "file" / "cache", mirror=server.url)


def test_an_interrupt_keeps_what_can_be_resumed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(answer: Any, part: Path, *_: Any) -> None:
        part.write_bytes(K3S[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_receive", receive)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, mirror=server.url)
    assert get(tmp_path, mirror=server.url).path.read_bytes() == K3S
    assert server.requests[-1][1]["Range"] == "bytes=10-"


def test_a_checksum_file_that_is_a_web_page(server: Server, tmp_path: Path) -> None:
    server.files["/v1.36.3%2Bk3s1/sha256sum-amd64.txt"] = b"<html>Please sign in</html>"
    with pytest.raises(BuildError, match="has no sha256 of k3s") as caught:
        get(tmp_path, mirror=server.url)
    assert "Please sign in" in caught.value.details


# --- checksum files


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{'a' * 64}  k3s\n", True),
        (f"{'a' * 64} *k3s\n", True),
        (f"{'A' * 64}  ./k3s\r\n", True),
        (f"{'a' * 64}  k3s-arm64\n", False),
        (f"{'a' * 64}  dist/k3s\n", False),
        (f"{'a' * 63}  k3s\n", False),
        ("", False),
    ],
)
def test_checksum_lines(text: str, found: bool) -> None:
    assert (release.checksum_in(text, "k3s") == "a" * 64) is found


# --- a mirror that is a folder


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror" / STANDIN
    folder.mkdir(parents=True)
    data = elf(STANDIN)
    (folder / "k3s").write_bytes(data)
    (folder / "sha256sum-amd64.txt").write_text(f"{hashlib.sha256(data).hexdigest()}  k3s\n")
    return folder.parent


@pytest.mark.parametrize("spelling", [STANDIN, STANDIN.replace("+", "%2B")])
def test_a_folder_in_either_spelling(mirror: Path, tmp_path: Path, spelling: str) -> None:
    (mirror / STANDIN).rename(mirror / spelling)
    for address in (str(mirror), mirror.as_uri()):
        got = get(tmp_path / "cache", version=STANDIN, mirror=address)
        assert got.standin
        assert got.path == mirror / spelling / "k3s"


def test_a_folder_without_the_version_says_what_it_has(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no v1") as caught:
        get(tmp_path / "cache", mirror=str(mirror))
    assert STANDIN in caught.value.details


def test_a_folder_whose_file_was_changed(mirror: Path, tmp_path: Path) -> None:
    (mirror / STANDIN / "k3s").write_bytes(elf(STANDIN, "changed"))
    with pytest.raises(BuildError, match="wrong sha256"):
        get(tmp_path / "cache", version=STANDIN, mirror=str(mirror))


@pytest.mark.parametrize("mirror_text", ["/nowhere/at/all", "ftp://host/x", "s3://bucket"])
def test_a_mirror_that_is_none(tmp_path: Path, mirror_text: str) -> None:
    with pytest.raises(BuildError, match="--k3s-mirror"):
        get(tmp_path, mirror=mirror_text)


def test_the_standin_is_never_looked_for_in_the_release(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="runtime for tests") as caught:
        get(tmp_path, version=STANDIN)
    assert "ci/runtime" in caught.value.hint
    with pytest.raises(BuildError, match="runtime for tests"):
        get(tmp_path, version=STANDIN, lock=lock(version=STANDIN))


# --- --locked and the version


def test_locked_needs_a_lock_of_this_version(tmp_path: Path) -> None:
    for known in (None, lock(version="v1.36.2+k3s1")):
        with pytest.raises(BuildError, match="--locked"):
            get(tmp_path, lock=known, locked=True, mirror="http://127.0.0.1:1")


@pytest.mark.parametrize("version", ["1.36.3", "v1.36.3", "v1.36.3+k3s1/../..", "", "v1.36.3+k3s1\n"])
def test_a_version_that_is_none(tmp_path: Path, version: str) -> None:
    with pytest.raises(BuildError, match="no version of k3s"):
        get(tmp_path, version=version)


# --- --k3s FILE


def write(folder: Path, data: bytes, name: str = "k3s") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_a_file_by_hand_is_not_recorded_by_itself(tmp_path: Path) -> None:
    got = get(tmp_path / "c", file=write(tmp_path / "f", K3S, "my-k3s"))
    assert (got.version, got.sha256, got.proof, got.first_seen) == (VERSION, SHA, Proof.NOTHING, False)


def test_a_file_beside_its_checksums_is_proven(tmp_path: Path) -> None:
    file = write(tmp_path / "f", K3S)
    (tmp_path / "f" / "sha256sum-amd64.txt").write_bytes(SUMS)
    assert get(tmp_path / "c", file=file).proof is Proof.CHECKSUMS
    file.write_bytes(K3S + b"!")
    with pytest.raises(BuildError, match="wrong sha256"):
        get(tmp_path / "c", file=file)


def test_a_file_that_is_locked_must_be_it(tmp_path: Path) -> None:
    file = write(tmp_path / "f", K3S)
    assert get(tmp_path / "c", file=file, lock=lock(), locked=True).proof is Proof.LOCK
    with pytest.raises(BuildError, match="wrong sha256"):
        get(tmp_path / "c", file=file, lock=lock("b" * 64))


def test_the_standin_is_known_by_its_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "f", elf(VERSION, STANDIN))  # both texts: the stand-in wins
    got = get(tmp_path / "c", file=file, lock=lock())
    assert got.standin
    assert got.version == STANDIN
    assert got.proof is Proof.NOTHING
    assert "The image will hold v1.36.3+standin1" in capsys.readouterr().err
    with pytest.raises(BuildError, match="--locked"):
        get(tmp_path / "c", file=file, lock=lock(), locked=True)


def test_a_version_with_a_digit_of_the_next_text_behind_it(tmp_path: Path) -> None:
    file = write(tmp_path / "f", elf(VERSION + "0"))
    assert get(tmp_path / "c", file=file).version == VERSION


def test_a_file_without_a_version_is_believed_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for texts in ((), ("v1.2.3+k3s1", "v1.3.3+k3s1")):
        assert get(tmp_path / "c", file=write(tmp_path / "f", elf(*texts))).version == VERSION
        assert "does not say its version" in capsys.readouterr().err


def test_an_empty_file_has_no_version(tmp_path: Path) -> None:
    assert release.version_in(write(tmp_path, b""), VERSION) is None


def test_files_that_cannot_be_it(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no such file"):
        get(tmp_path, file=tmp_path / "absent")
    with pytest.raises(BuildError, match="no such file"):
        get(tmp_path, file=tmp_path)
    for data in (b"", b"<html>", b"\x7fELF"):
        with pytest.raises(BuildError, match="no program"):
            get(tmp_path, file=write(tmp_path / "f", data))


def test_a_file_for_another_architecture(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is for arm64, the profile is for x86-64"):
        get(tmp_path, file=write(tmp_path / "f", elf(VERSION, machine=183)))
    with pytest.raises(BuildError, match="is for another machine, the profile is for arm64") as caught:
        get(tmp_path, arch=Arch.ARM64, file=write(tmp_path / "f", elf(VERSION, machine=40)))
    assert "k3s-arm64" in caught.value.hint

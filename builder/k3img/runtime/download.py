"""Fetch a file over http(s) into the cache: resumed, checked by its sha256, there whole or not at all.

Python's urllib is enough: it knows proxies and the system's certificates. What is half there stays as
`NAME.part` only if the server can go on from it (it names a version of the file by ETag or
Last-Modified), and is proven by the sha256 in the end like everything else.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from k3img import __version__
from k3img.errors import BuildError
from k3img.log import line, progress
from k3img.tools.apt import sha256_of
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 30.0
"""Seconds without a single byte after which a server counts as hanging."""
TRIES = 4
PAUSE = 2.0

_CHUNK = 1 << 18
_TEXT_LIMIT = 1 << 20


class _UnfinishedError(Exception):
    """The transfer stopped before its end; trying again may help."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def text(url: str, *, hint: str = "") -> str:
    """A small text, such as a checksum file. Raises `BuildError` that says what is wrong, and `hint`."""
    for left in reversed(range(TRIES)):
        try:
            with _open(url, {}) as answer:
                return str(answer.read(_TEXT_LIMIT).decode("utf-8", errors="replace"))
        except _UnfinishedError as error:
            if not left:
                raise _cannot(url, str(error), hint) from error
        except (OSError, http.client.HTTPException) as error:
            raise _cannot(url, _reason(error), hint) from error
        time.sleep(PAUSE)
    raise AssertionError("unreachable: the last try raises or returns")


def file(url: str, to: Path, *, sha256: str, says: str, title: str, hint: str = "") -> Path:
    """Have the file at `url` as `to`; `says` names who gave the sha256, for the error.

    Several processes may ask for the same file: one downloads, the others wait for it.
    Raises `BuildError` with `hint` when it cannot be had or has another sha256.
    """
    try:
        return _file(url, to, sha256=sha256, says=says, title=title, hint=hint)
    except OSError as error:
        raise BuildError(
            f"cannot keep {to.name} in the cache: {error.strerror} ({error.filename})",
            hint="$K3IMG_CACHE names another place for the cache.",
        ) from error


def _file(url: str, to: Path, *, sha256: str, says: str, title: str, hint: str) -> Path:
    make_folder(to.parent)
    found = ""
    part = to.with_name(to.name + ".part")
    with _alone(to):
        if sha256_of(to) == sha256:
            return to
        for left in reversed(range(TRIES)):
            try:
                resumed = _transfer(url, part, title)
            except _UnfinishedError as error:
                if not left:
                    raise _stopped(url, str(error), part, hint) from error
                line(f"{title}: {error}; trying again")
                time.sleep(PAUSE)
                continue
            except (OSError, http.client.HTTPException) as error:
                raise _cannot(url, _reason(error), hint) from error
            found = sha256_of(part)
            if found == sha256:
                _note(part).unlink(missing_ok=True)
                part.replace(to)
                return to
            _drop(part)
            if not resumed:
                break
            # The first piece, of an earlier run, may have been the bad one.
            line(f"{title}: the resumed file has the wrong sha256; starting over")
    raise BuildError(
        f"{url} has the wrong sha256",
        details=f"expected {sha256}\n         (says {says})\nfound    {found}",
        hint="The file was replaced, or something on the way changes it. Nothing of it was kept. " + hint,
    )


def _transfer(url: str, part: Path, title: str) -> bool:
    """Get all of it into `part`; whether it went on from an earlier piece. What cannot go on is removed."""
    have, validator = _earlier(url, part)
    keep = bool(have)
    try:
        with _open(url, {"Range": f"bytes={have}-", "If-Range": validator} if have else {}) as answer:
            resumed = bool(answer.status == 206)
            if resumed and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
                keep = False
                raise _UnfinishedError("the server sent another part of the file than it was asked for")
            have = have if resumed else 0
            length = str(answer.headers.get("Content-Length", ""))
            keep = _remember(part, url, answer)
            _receive(answer, part, have, have + int(length) if length.isdecimal() else None, title)
    except BaseException as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:
            _drop(part)
            raise _UnfinishedError(
                "the server has a shorter file than the piece of an earlier run"
            ) from error
        if not keep or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            _drop(part)
        raise
    return resumed


def _open(url: str, headers: dict[str, str]) -> Any:
    """The server's answer. An overloaded server, or one that hangs up at once, is worth another try."""
    opener = urllib.request.build_opener(_NoDowngrade)
    request = urllib.request.Request(url, headers={"User-Agent": f"k3img/{__version__}", **headers})
    try:
        return opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()  # it is an answer as well, and holds the connection
        if error.code == 429 or error.code >= 500:
            raise _UnfinishedError(f"the server answered {error.code} {error.reason}") from error
        raise
    except ConnectionResetError as error:
        raise _UnfinishedError("the server closed the connection without an answer") from error


def _receive(answer: Any, part: Path, have: int, total: int | None, title: str) -> None:
    with part.open("ab" if have else "wb") as out, progress(title, total) as advance:
        advance(have)
        while True:
            try:
                data = answer.read(_CHUNK)
            except TimeoutError as error:
                raise _UnfinishedError(f"the server sent nothing for {TIMEOUT:.0f} s") from error
            except (ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
                raise _UnfinishedError(f"the connection broke ({_reason(error)})") from error
            if not data:
                break
            out.write(data)
            have += len(data)
            advance(len(data))
    if total is not None and have < total:
        raise _UnfinishedError(f"the connection ended at {have / 1e6:.1f} of {total / 1e6:.1f} MB")


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _earlier(url: str, part: Path) -> tuple[int, str]:
    """How much an earlier run left of this very file, and the ETag or date that says which one it was."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        size = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    if not isinstance(note, dict) or note.get("url") != url or not isinstance(note.get("validator"), str):
        return 0, ""
    return size, note["validator"]


def _remember(part: Path, url: str, answer: Any) -> bool:
    """Note what a piece will be a piece of; False when the server says nothing by which to know it again."""
    etag = answer.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    if not validator:
        return False
    _note(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
    return True


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Only one process at a time passes here for one file."""
    with to.with_name(to.name + ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            line(f"another k3img is downloading {to.name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            give_to_caller(to.parent)  # or a later run without sudo could not open what this one made


def _reason(error: Exception) -> str:
    """What went wrong, in words for a person."""
    if isinstance(error, urllib.error.HTTPError):
        missing = "there is no such file on the server (404)"
        return missing if error.code == 404 else f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    match error:
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)"
        case socket.gaierror():
            return f"the server's name cannot be looked up ({error.strerror})"
        case TimeoutError():
            return f"the server did not answer within {TIMEOUT:.0f} s"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message})"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"the disk is full ({error.filename or 'in the cache'})"
        case _:
            return str(error) or type(error).__name__


def _cannot(url: str, reason: str, hint: str) -> BuildError:
    # All in one line: scripts show the first line of what they could not do.
    return BuildError(f"cannot download {url}: {reason}", hint=hint)


def _stopped(url: str, reason: str, part: Path, hint: str) -> BuildError:
    kept = part.stat().st_size / 1e6 if part.exists() else 0
    going_on = f"{kept:.1f} MB are kept; run it again to go on from there. " if kept else ""
    return BuildError(f"cannot download {url} to its end: {reason}", hint=going_on + hint)

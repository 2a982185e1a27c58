"""The one way to run a program and wait for it, over `sh`.

An argument list, never a shell; an environment made from a short allow-list; no terminal (`sh` gives
its children one by default); the output streamed to a log file; the last lines kept for the error.
A program that is interrupted or times out is ended with its whole process group before we go on.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sh

from k3img.errors import MissingToolError, ProgramError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Arg = str | os.PathLike[str]

KEPT_LINES = 40
"""Lines of output that an error carries."""

# How sh starts a child: ours to wait for and to end, with pipes instead of a terminal, any status accepted.
PLAIN: dict[str, Any] = {
    "_bg": True,
    "_bg_exc": False,
    "_return_cmd": True,
    "_new_session": True,
    "_tty_out": False,
    "_decode_errors": "replace",
    "_no_out": True,
    "_no_err": True,
    "_ok_code": list(range(-64, 256)),
}

# What a child may see of our environment: where things are, how to reach the network, nothing else.
ALLOWED = (
    *("PATH", "HOME", "USER", "TMPDIR", "TERM", "K3IMG_CACHE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SUDO_UID", "SUDO_GID", "SUDO_USER"),
)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment cut down to `ALLOWED`, in the C.UTF-8 locale, plus `extra`."""
    kept = {name: os.environ[name] for name in ALLOWED if name in os.environ}
    # Debian keeps mkfs and friends in sbin, which an ordinary user's PATH lacks.
    kept["PATH"] = ":".join(dict.fromkeys([*kept.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]))
    return {**kept, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(extra or {})}


def which(name: str) -> Path | None:
    """Where a program is, looked for as `run` does, or None."""
    found = shutil.which(name, path=clean_environment()["PATH"])
    return Path(found) if found else None


def quoted(argv: Sequence[Arg]) -> str:
    """The command as one could type it."""
    return shlex.join(os.fspath(arg) for arg in argv)


def run(
    argv: Sequence[Arg],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Arg = ".",
    timeout: float | None = None,
    log: Path | None = None,
    stdin: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
    hint: str = "",
) -> str:
    """Run a program to its end and return its standard output.

    Standard output and error are appended to `log`; `on_line` sees each line of either as it comes.
    Raises `MissingToolError` when there is no such program, `ProgramError` when it fails, dies by a
    signal or takes longer than `timeout` seconds.
    """
    program = which(os.fspath(argv[0]))
    if program is None:
        raise MissingToolError(
            f"the program {os.fspath(argv[0])!r} is not installed",
            hint=hint or "`k3img doctor` says which package has it.",
        )
    out: list[str] = []
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    with log.open("a", encoding="utf-8") if log else open(os.devnull, "a") as sink:  # noqa: PTH123
        sink.write(f"+ {quoted(argv)}\n")

        def see(text: str, keep: list[str] | None) -> None:
            sink.write(text)
            tail.append(text.rstrip("\n"))
            if keep is not None:
                keep.append(text)
            if on_line is not None:
                on_line(text.rstrip("\n"))

        child = sh.Command(os.fspath(program))(
            *(os.fspath(arg) for arg in argv[1:]),
            **PLAIN,
            _env=clean_environment(env),
            _cwd=os.fspath(cwd),
            _in=stdin or b"",
            _out=lambda text: see(text, out),
            _err=lambda text: see(text, None),
        )
        status = _wait(child, timeout)
    if status != 0:
        raise ProgramError(
            _how_it_ended(argv, status, timeout), status=status, output="\n".join(tail), hint=hint
        )
    return "".join(out)


def _wait(child: Any, timeout: float | None) -> int:
    """The exit status; negative for a signal. Whatever stops the waiting ends the child's group."""
    try:
        child.wait(timeout=timeout)
        # With a timeout sh's wait does not wait for the thread that reads the output.
        child.process.wait()
    except BaseException as error:
        _end(child)
        if isinstance(error, sh.TimeoutException):
            return -int(signal.SIGALRM)
        raise
    return int(child.exit_code)


def _end(child: Any) -> None:
    """SIGTERM to the child's process group, and SIGKILL ten seconds later if it is still there."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            child.signal_group(number)
            child.wait(timeout=patience)
        except sh.TimeoutException:
            continue
        except ProcessLookupError:
            return
        return


def _how_it_ended(argv: Sequence[Arg], status: int, timeout: float | None) -> str:
    name = Path(argv[0]).name
    if status == -signal.SIGALRM:
        return f"{name} did not end within {timeout:.0f} s: {quoted(argv)}"
    if status < 0:
        return f"{name} was ended by {signal.Signals(-status).name}: {quoted(argv)}"
    return f"{name} failed (exit status {status}): {quoted(argv)}"

"""A real PostgreSQL on the network of clusters under test, for servers whose state lies there."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc, scratch
from k3img.errors import MissingToolError, ProgramError
from k3img.vm.child import Child
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from contextlib import ExitStack

PLACES = Path("/usr/lib/postgresql")
"""Where Debian puts each version's programs; only some are on PATH."""

USER = "nobody"
"""PostgreSQL does not run as root."""

PORT = 5432
START_SECONDS = 30


class Postgres:
    """A database k3s at `address`, new and empty; `stack` ends it. `url` holds its password."""

    def __init__(self, stack: ExitStack, address: str) -> None:
        self._bin = _programs()
        if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split()[2] == "1":
            raise MachineError("a PostgreSQL beside the machines needs root: it runs as another user")
        self._folder = stack.enter_context(scratch.folder())
        self._folder.chmod(0o711)
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        shutil.chown(data, USER)
        password = secrets.token_hex(16)
        self.url = f"postgres://k3s:{password}@{address}:{PORT}/postgres?sslmode=disable"
        first = self._folder / "password"
        first.write_text(password)
        first.chmod(0o600)
        shutil.chown(first, USER)
        proc.run(
            [
                *self._as_user(), self._bin / "initdb", "--pgdata", data, "--username", "k3s",
                "--auth", "scram-sha-256", "--pwfile", first, "--encoding", "UTF8", "--no-locale",
            ],
            cwd="/",
        )  # fmt: skip
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        self._argv = (
            *self._as_user(), str(self._bin / "postgres"), "-D", str(data), "-p", str(PORT),
            "-c", f"listen_addresses={address}", "-c", f"unix_socket_directories={data}",
        )  # fmt: skip
        self._child: Child | None = None
        stack.callback(self.stop)
        self.start()

    def _as_user(self) -> tuple[str, ...]:
        user = pwd.getpwnam(USER)
        return (
            str(proc.which("setpriv")),
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
        )

    def start(self) -> None:
        """Start it and wait until it takes connections. Raises `MachineError`."""
        self._child = Child(self._argv, log=self._folder / "postgres.log", cwd=Path("/"), name="postgres")
        deadline = time.monotonic() + START_SECONDS
        asked: list[proc.Arg] = [self._bin / "pg_isready", "-h", self._folder / "data", "-p", str(PORT)]
        while True:
            self._child.check()
            try:
                proc.run(asked, cwd="/")
            except ProgramError as error:
                if time.monotonic() > deadline:
                    raise MachineError("postgres does not start", details=self._child.messages()) from error
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """End it and every connection to it."""
        if self._child is not None:
            # A child of another user takes our SIGTERM as "when the last client has gone"; SIGINT ends now.
            self._child.interrupt()
        self._child = None


def _programs() -> Path:
    found = sorted(PLACES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise MissingToolError("a real PostgreSQL is needed", hint="apt-get install postgresql")
    return found[-1].parent

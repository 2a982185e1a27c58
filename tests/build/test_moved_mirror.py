"""A Debian mirror that has moved on, with apt, signatures and HTTP as they are.

Its suite is never released: the date until which its lists are valid has passed, and nobody minds.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.unit.test_build_packages import deb

from k3img import proc
from k3img.build import firmware
from k3img.errors import BuildError
from k3img.plan.model import BootFirmware, BootPackage
from k3img.profile.model import Arch
from k3img.runtime.lock import Lock
from k3img.tools import apt
from k3img.tools.apt import PackageFile
from k3img.tools.aptsources import sources
from k3img.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.programs

SUITE = "experimental"
LONG_AGO = "Thu, 01 Jan 2026 00:00:00 UTC"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A Debian archive in a folder, and the folder of the key that signs it."""

    root: Path
    gpg: Path

    def hold(self, **packages: str) -> None:
        """Have these versions and no others, and sign that."""
        shutil.rmtree(self.root / "pool", ignore_errors=True)
        (self.root / "pool").mkdir(parents=True)
        stanzas = []
        for name, version in packages.items():
            data = deb(name, version, "all")
            file = self.root / f"pool/{name}_{version}_all.deb"
            file.write_bytes(data)
            stanzas.append(
                f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
                f"Filename: pool/{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
            )
        text = "\n".join(stanzas)
        lists = self.root / f"dists/{SUITE}"
        for component in ("main", "non-free-firmware"):
            folder = lists / component / "binary-arm64"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "Packages").write_text(text if component == "main" else "")
        files = sorted(lists.glob("*/*/Packages"))
        sums = "".join(f" {sha256(file)} {file.stat().st_size} {file.relative_to(lists)}\n" for file in files)
        (self.root / "Release").write_text(
            f"Origin: Debian\nSuite: {SUITE}\nCodename: rc-buggy\nArchitectures: all arm64\n"
            f"Components: main non-free-firmware\nDate: {LONG_AGO}\nValid-Until: {LONG_AGO}\nSHA256:\n{sums}"
        )
        self.sign(self.gpg)

    def sign(self, gpg: Path) -> None:
        """Sign the lists with a key."""
        target = self.root / f"dists/{SUITE}/InRelease"
        proc.run(
            [
                "gpg",
                "--homedir",
                gpg,
                "--batch",
                "--yes",
                "--output",
                target,
                "--clearsign",
                self.root / "Release",
            ]
        )


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def key(folder: Path) -> Path:
    """A new key that signs."""
    folder.mkdir(mode=0o700)
    new = ("--quick-generate-key", "k3img test", "ed25519", "sign", "never")
    proc.run(["gpg", "--homedir", folder, "--batch", "--passphrase", "", *new])
    return folder


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive that apt trusts in the place of Debian's."""
    gpg = key(tmp_path / "gpg")
    ring = tmp_path / "debian-archive-keyring.gpg"
    proc.run(["gpg", "--homedir", gpg, "--batch", "--output", ring, "--export"])
    etc = tmp_path / "etc"
    etc.mkdir()
    monkeypatch.setattr(firmware, "sources", functools.partial(sources, etc=etc, keyrings=(ring,)))
    monkeypatch.setattr(apt, "network_settings", list)  # the host's proxy does not lead to this archive
    return Archive(root=tmp_path / "debian", gpg=gpg)


@pytest.fixture
def step(archive: Archive) -> Iterator[BootFirmware]:
    """What a board wants of it, by HTTP."""
    handler = functools.partial(Silent, directory=archive.root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield BootFirmware(
        packages=tuple(BootPackage(name=name, at_least="1", suites=(SUITE,)) for name in ("boot", "rom")),
        files=(),
        device_trees=(),
        texts=(),
        mirror=f"http://127.0.0.1:{server.server_port}",
        reason="",
    )
    server.shutdown()
    server.server_close()


class Silent(http.server.SimpleHTTPRequestHandler):
    """Logs nothing, and always sends the file: two versions of it may be of the same second."""

    def do_GET(self) -> None:
        """As if nobody had it."""
        del self.headers["If-Modified-Since"]
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def versions(
    step: BootFirmware,
    tmp_path: Path,
    *,
    lock: Lock | None = None,
    kept: Path | None = None,
    cache: str = "cache",
) -> list[str]:
    """What a build would take."""
    tree = Tree(root=tmp_path, cache=tmp_path / cache)
    found = firmware.get(step, Arch.ARM64, tree, lock=lock, kept=kept, log=None, note=lambda _: None)
    return [item.version for item in found]


def locked(archive: Archive) -> Lock:
    """A lock of what the archive has now."""
    pins = []
    for file in sorted((archive.root / "pool").iterdir()):
        name, version, _ = file.stem.split("_")
        digest = sha256(file)
        pins.append(
            PackageFile(
                name=name,
                version=version,
                arch="all",
                sha256=digest,
                filename=f"pool/{file.name}",
                suite=SUITE,
            )
        )
    return Lock(made="2026-11-25").with_packages(firmware.SECTION, pins, made="2026-11-25")


def test_a_version_that_is_gone(archive: Archive, step: BootFirmware, tmp_path: Path) -> None:
    archive.hold(boot="1.5", rom="20250101")
    assert versions(step, tmp_path) == ["1.5", "20250101"]
    lock = locked(archive)
    kept = tmp_path / "kept"
    shutil.copytree(archive.root / "pool", kept)
    archive.hold(boot="1.6~rc1", rom="20250101")
    with pytest.raises(BuildError) as caught:
        versions(step, tmp_path, lock=lock, cache="empty")
    said = f"{caught.value} {caught.value.details} {caught.value.hint}"
    assert "boot 1.5" in said
    assert "1.6~rc1" in said
    assert "k3img lock --update" in said
    assert "--package-dir" in said
    assert "rom 2025" not in caught.value.details, "that one is there"
    assert versions(step, tmp_path, lock=lock) == ["1.5", "20250101"], "the cache has it still"
    assert versions(step, tmp_path, lock=lock, kept=kept, cache="other") == ["1.5", "20250101"]
    assert versions(step, tmp_path) == ["1.6~rc1", "20250101"], "what an update of the lock takes"


def test_lists_that_somebody_else_signed(archive: Archive, step: BootFirmware, tmp_path: Path) -> None:
    archive.hold(boot="1.5", rom="20250101")
    archive.sign(key(tmp_path / "other"))
    with pytest.raises(BuildError, match="cannot be asked") as caught:
        versions(step, tmp_path)
    assert "NO_PUBKEY" in caught.value.details or "is not signed" in caught.value.details


def test_lists_that_were_changed(archive: Archive, step: BootFirmware, tmp_path: Path) -> None:
    archive.hold(boot="1.5", rom="20250101")
    with (archive.root / f"dists/{SUITE}/main/binary-arm64/Packages").open("a") as file:
        file.write("\nPackage: more\n")
    with pytest.raises(BuildError, match="cannot be asked"):
        versions(step, tmp_path)


def test_a_file_that_was_changed(archive: Archive, step: BootFirmware, tmp_path: Path) -> None:
    archive.hold(boot="1.5", rom="20250101")
    (archive.root / "pool/boot_1.5_all.deb").write_bytes(deb("boot", "1.5", "all", extra="Source: evil\n"))
    with pytest.raises(BuildError, match="not to be had") as caught:
        versions(step, tmp_path)
    assert "boot 1.5" in caught.value.details
    assert not list((tmp_path / "cache/debs").glob("*.part*"))

"""A k3s file whose archive cannot be cut out unpacks itself: in the sandbox, natively and by qemu-user.

The files are made here: a shell script, and a small Go program that keeps its archive XORed.
"""

from __future__ import annotations

import base64
import os
import platform
import shutil
from pathlib import Path

import pytest
from tests.unit.test_runtime_unpack import PROGRAMS, Content, artifact

from k3img import proc
from k3img.build import selfrun
from k3img.errors import BuildError
from k3img.profile.model import Arch
from k3img.runtime.unpack import unpack
from k3img.tools import mkosi
from k3img.tree import Tree, cache_dir

pytestmark = pytest.mark.programs

NAME = "0f" * 32

GO = """\
package main

import (
	"archive/tar"
	"bytes"
	_ "embed"
	"io"
	"net"
	"os"
	"path/filepath"
)

//go:embed hidden
var hidden []byte

func main() {
	dir := filepath.Join(os.Args[2], "data", "%s")
	for i := range hidden {
		hidden[i] ^= 0x5a
	}
	// Whoever could leave the sandbox by network or disk is told so by a missing archive.
	if links, err := net.Interfaces(); err != nil || len(links) > 1 {
		os.Exit(3)
	}
	if os.WriteFile("/usr/mark", nil, 0o644) == nil {
		os.Exit(4)
	}
	reader := tar.NewReader(bytes.NewReader(hidden))
	for {
		head, err := reader.Next()
		if err == io.EOF {
			os.Exit(1) // as check-config does on a host that lacks something
		}
		path := filepath.Join(dir, head.Name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		switch head.Typeflag {
		case tar.TypeSymlink:
			os.Symlink(head.Linkname, path)
		case tar.TypeReg:
			file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
			if err != nil {
				panic(err)
			}
			io.Copy(file, reader)
			file.Close()
		}
	}
}
"""

NATIVE = Arch.X86_64 if platform.machine() == "x86_64" else Arch.ARM64


@pytest.fixture(scope="module")
def engine() -> tuple[str, ...]:
    found = mkosi.find(Tree(root=Path.cwd(), cache=cache_dir()))
    if found is None:
        pytest.skip("mkosi is neither on PATH nor in the cache: ci/setup")
    return found.argv


def go_program(folder: Path, arch: Arch) -> bytes:
    """A static program of Go that holds the archive XORed with 0x5a."""
    if (go := shutil.which("go")) is None:
        pytest.skip("no Go here")
    source = folder / "source"
    source.mkdir()
    (source / "main.go").write_text(GO % NAME)
    (source / "go.mod").write_text("module hidden\n\ngo 1.19\n")
    (source / "hidden").write_bytes(bytes(byte ^ 0x5A for byte in Content().tar()))
    env = {"CGO_ENABLED": "0", "GOARCH": arch.debian, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    proc.run([go, "build", "-o", "program", "."], cwd=source, env={**env, "GOCACHE": str(folder / "go")})
    data = (source / "program").read_bytes()
    shutil.rmtree(source)
    shutil.rmtree(folder / "go")
    return data


def script() -> bytes:
    """The same in shell; it also says whether it could see more than it should."""
    text = f"""#!/bin/sh
set -e
[ "$3" = check-config ]
[ ! -e /home ] && [ ! -e /root ] && [ ! -e /etc/passwd ]
if touch /usr/mark 2>/dev/null; then exit 4; fi
mkdir -p "$2/data/{NAME}"
sed '1,/^ARCHIVE$/d' "$0" | base64 -d | tar -C "$2/data/{NAME}" --no-same-owner -x
exit 1
ARCHIVE
"""
    return text.encode() + base64.encodebytes(Content().tar())


def check(folder: Path, data: bytes, arch: Arch, engine: tuple[str, ...]) -> None:
    what = artifact(folder, data)
    with pytest.raises(BuildError, match="holds no"):
        unpack(what, folder / "runtime")
    log = folder / "log"
    got = unpack(what, folder / "runtime", run_self=selfrun.self_unpacker(engine, arch, log))
    assert got.archive == NAME
    assert (got.folder / "bin/k3s").read_bytes() == PROGRAMS["bin/k3s"]
    assert (got.folder / "cni/host-local").is_symlink()
    assert {path.name for path in folder.iterdir()} == {"k3s", "runtime", "log"}
    assert not Path("/usr/mark").exists()


def test_a_script_in_the_sandbox(tmp_path: Path, engine: tuple[str, ...]) -> None:
    check(tmp_path, script(), NATIVE, engine)


def test_a_program_with_a_hidden_archive(tmp_path: Path, engine: tuple[str, ...]) -> None:
    check(tmp_path, go_program(tmp_path, NATIVE), NATIVE, engine)


def test_a_program_for_the_other_architecture(tmp_path: Path, engine: tuple[str, ...]) -> None:
    other = Arch.ARM64 if NATIVE is Arch.X86_64 else Arch.X86_64
    if not any(proc.which(f"qemu-{selfrun.MACHINES[other]}{end}") for end in ("-static", "")):
        pytest.skip("no qemu-user here: apt-get install qemu-user-static")
    check(tmp_path, go_program(tmp_path, other), other, engine)


def test_what_unpacks_nothing_is_refused(tmp_path: Path, engine: tuple[str, ...]) -> None:
    what = artifact(tmp_path, b"#!/bin/sh\necho I am no k3s >&2\nexit 7\n")
    with pytest.raises(BuildError, match="did not unpack itself") as caught:
        unpack(what, tmp_path / "runtime", run_self=selfrun.self_unpacker(engine, NATIVE))
    assert "I am no k3s" in caught.value.details
    assert {path.name for path in tmp_path.iterdir()} == {"k3s"}


@pytest.mark.skipif(os.geteuid() == 0, reason="for an ordinary user")
def test_the_network_is_off_for_an_ordinary_user_too(tmp_path: Path, engine: tuple[str, ...]) -> None:
    check(tmp_path, script(), NATIVE, engine)

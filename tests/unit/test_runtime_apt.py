"""What a host's apt configuration says about Debian, and what an index says about packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.errors import BuildError, MissingToolError
from k3img.tools import apt
from k3img.tools.apt import NETWORK, PackageFile, conf, parse_index, sha256_of
from k3img.tools.aptsources import parse, sources

if TYPE_CHECKING:
    from pathlib import Path

OBSERVED = """\
Types: deb
# http://snapshot/archive/debian/20250520T000000Z
URIs: http://mirror/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
# http://snapshot/archive/debian-security/20250520T000000Z
URIs: http://mirror/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


class Host:
    """An /etc/apt that tests fill, and a keyring."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "apt"
        (self.etc / "sources.list.d").mkdir(parents=True)
        self.keyring = folder / "keyrings" / "debian-archive-keyring.gpg"
        self.keyring.parent.mkdir()
        self.keyring.touch()

    def has(self, **files: str) -> Host:
        for name, text in files.items():
            suffix = "sources" if "Types:" in text else "list"
            (self.etc / "sources.list.d" / f"{name}.{suffix}").write_text(text)
        return self

    def sources(self, suite: str, mirror: str | None = None, components: tuple[str, ...] = ("main",)) -> str:
        return sources(suite, mirror, components=components, etc=self.etc, keyrings=[self.keyring])

    def stanzas(self, suite: str, mirror: str | None = None) -> list[tuple[str, str, str]]:
        """URIs, suites and Signed-By's file name of each stanza."""
        found = parse(self.sources(suite, mirror), "test", deb822=True)
        return [(" ".join(s.uris), " ".join(s.suites), s.signed_by.rpartition("/")[2]) for s in found]


RING = "debian-archive-keyring.gpg"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_observed_host(host: Host) -> None:
    host.has(
        debian=OBSERVED,
        cloud="deb https://vendor/apt cloud-sdk-bookworm main\n",
        node="Types: deb\nURIs: https://node/x\nSuites: nodistro\nComponents: main\nSigned-By: /k.gpg\n",
    )
    assert host.stanzas("trixie") == [
        ("http://mirror/debian", "trixie trixie-updates", RING),
        ("http://mirror/debian-security", "trixie-security", RING),
    ]
    assert host.stanzas("forky") == [("http://mirror/debian", "forky", RING)]
    assert host.stanzas("sid") == [("http://mirror/debian", "sid", RING)]


def test_one_line_sources(host: Host) -> None:
    (host.etc / "sources.list").write_text(
        "# deb http://off/debian bookworm main\n"
        "deb-src http://src/debian bookworm main\n"
        "deb [ arch=amd64 trusted=yes check-valid-until=no ] http://m/debian bookworm main contrib # x\n"
        "deb\thttp://m/debian   bookworm-updates main\n"
        "deb http://m/debian-security bookworm-security/ main\n"
        "deb http://s/debian-security bookworm-security main\n"
        "deb cdrom:[Debian 12]/ bookworm main\n"
        "nonsense\n"
    )
    text = host.sources("trixie")
    assert host.stanzas("trixie")[0][0] == "http://m/debian"
    assert host.stanzas("trixie")[1][0] == "http://s/debian-security"
    assert "Check-Valid-Until: no" in text
    assert "trusted" not in text.lower()
    assert "amd64" not in text
    assert "contrib" not in text


def test_components_are_those_asked_for(host: Host) -> None:
    host.has(debian=OBSERVED)
    text = host.sources("trixie", components=("main", "non-free-firmware"))
    assert text.count("Components: main non-free-firmware\n") == 2


def test_a_vendor_that_names_its_suites_after_debian(host: Host) -> None:
    host.has(
        a_vendor="deb [signed-by=/etc/vendor.gpg] https://vendor/debian bookworm main\n",
        b_docker="deb https://docker/linux/debian bookworm stable\n",
        z_debian=OBSERVED,
    )
    assert host.stanzas("trixie")[0][0] == "http://mirror/debian"
    (host.etc / "sources.list.d/z_debian.sources").unlink()
    host.has(z_debian="deb http://unsigned/debian bookworm main\n")
    assert host.stanzas("trixie")[0][0] == "http://unsigned/debian"


def test_a_company_that_signs_its_mirror_itself(host: Host) -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n# note: x\n abc\n -----END PGP PUBLIC KEY BLOCK-----"
    host.has(
        debian=f"Types: deb\nURIs: https://corp/debian\nSuites: bookworm\nComponents: main\nSigned-By:{key}\n"
    )
    text = host.sources("trixie")
    assert "https://corp/debian" in text
    assert " abc\n -----END PGP" in text
    assert parse(text, "x", deb822=True)[0].signed_by.endswith("BLOCK-----")


@pytest.mark.parametrize("off", ["no", "No", "false", "0"])
def test_disabled_stanzas_do_not_count(host: Host, off: str) -> None:
    host.has(debian=OBSERVED.replace("Types: deb\n", f"Enabled: {off}\nTypes: deb\n"))
    with pytest.raises(BuildError, match="names no Debian archive"):
        host.sources("trixie")


@pytest.mark.parametrize("text", ["", "deb http://u/ubuntu noble main\n", "deb http://a ./\n"])
def test_a_host_without_debian(host: Host, text: str) -> None:
    host.has(other=text)
    with pytest.raises(BuildError, match="names no Debian archive") as caught:
        host.sources("trixie")
    assert "mirror" in caught.value.hint
    assert host.stanzas("trixie", "https://m/debian") == [("https://m/debian", "trixie trixie-updates", RING)]


def test_a_host_that_has_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="names no Debian archive"):
        sources("trixie", etc=tmp_path / "absent", keyrings=[tmp_path])


def test_a_named_mirror_leaves_security_to_the_host(host: Host) -> None:
    host.has(debian=OBSERVED)
    assert host.stanzas("trixie", "file:/srv/debian") == [
        ("file:/srv/debian", "trixie trixie-updates", RING),
        ("http://mirror/debian-security", "trixie-security", RING),
    ]


@pytest.mark.parametrize(
    "mirror", ["", "mirror", "/srv/debian", "http://a b", "http://a\nTrusted: yes", "gopher://a"]
)
def test_a_mirror_that_is_no_address(host: Host, mirror: str) -> None:
    host.has(debian=OBSERVED)
    with pytest.raises(BuildError, match=r"os\.mirror"):
        host.sources("trixie", mirror)


def test_no_security_updates_is_said(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.has(debian="deb http://m/debian sid main\n")
    assert host.stanzas("trixie") == [("http://m/debian", "trixie trixie-updates", RING)]
    assert "without them" in capsys.readouterr().err
    host.sources("sid")
    assert not capsys.readouterr().err


def test_a_new_stable_is_known_by_the_hosts_own_lists(host: Host) -> None:
    host.has(debian=OBSERVED.replace("bookworm", "forky"))
    assert [suites for _, suites, _ in host.stanzas("forky")] == ["forky forky-updates", "forky-security"]


def test_a_list_of_mirrors_is_written_out(host: Host, tmp_path: Path) -> None:
    names = tmp_path / "mirrors.list"
    names.write_text("https://one/debian\tpriority:1\n# no\n\nhttps://two/debian\n")
    host.has(debian=OBSERVED.replace("http://mirror/debian\n", f"mirror+file:{names}\n"))
    assert host.stanzas("trixie")[0][0] == "https://one/debian https://two/debian"


def test_without_a_keyring_nothing_can_be_checked(host: Host) -> None:
    host.has(debian="deb http://m/debian bookworm main\ndeb http://m/s bookworm-security main\n")
    host.keyring.unlink()
    with pytest.raises(MissingToolError, match="keyring") as caught:
        host.sources("trixie")
    assert "debian-archive-keyring" in caught.value.hint


def test_the_hosts_own_keyring_is_kept_if_it_is_there(host: Host, tmp_path: Path) -> None:
    own = tmp_path / "debian-archive-trixie-stable.pgp"
    own.touch()
    host.has(debian=f"deb [signed-by={own}] http://m/debian bookworm main\n")
    assert host.stanzas("trixie")[0][2] == own.name


# --- configuration of a private root


def test_the_private_root_is_cut_off_from_the_host(tmp_path: Path) -> None:
    text = conf(tmp_path, "arm64", ['Acquire::http::Proxy "http://p:1";'], sandboxed=False)
    assert f'Dir::State::lists "{tmp_path}/lists";' in text
    for name in ("main", "parts", "sourceparts", "trusted", "trustedparts", "preferences"):
        assert f'Dir::Etc::{name} "/dev/null";' in text
    assert 'APT::Architecture "arm64";' in text
    assert "Proxy" in text
    assert 'APT::Sandbox::User "root";' in text
    assert "Sandbox" not in conf(tmp_path, "amd64", [], sandboxed=True)


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ('Acquire::http::Proxy "http://p:1";', True),
        ('Acquire::https::CaInfo "/x";', True),
        ('Acquire::Check-Valid-Until "false";', True),
        ('Acquire::AllowInsecureRepositories "1";', False),
        ('Acquire::AllowDowngradeToInsecureRepositories "1";', False),
        ('Acquire::IndexTargets::deb::DEP-11::MetaKey "x";', False),
        ('APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";', False),
        ('APT::Get::AllowUnauthenticated "1";', False),
        ('Dir::Cache::pkgcache "";', False),
    ],
)
def test_only_the_network_is_the_hosts(line: str, taken: bool) -> None:
    assert bool(NETWORK.match(line)) is taken


# --- indexes

INDEX = f"""\
Package: bash
Version: 5.2-1
Architecture: amd64
Description: the shell
 Filename: not/this.deb
 .
 text: more
Filename: pool/main/b/bash_5.2-1_amd64.deb
Size: 123
SHA256: {"a" * 64}

Package: bash
Version: 5.3-1
Architecture: amd64
Filename: pool/main/b/bash_5.3-1_amd64.deb
Size: 124
SHA256: {"b" * 64}


Package: broken
Version: 1
Architecture: all
Filename: pool/x.deb
SHA256: 12

Package: zlib
Version: 1
Architecture: all
Filename: pool/z.deb
SHA256: {"c" * 64}"""


def test_an_index_is_read() -> None:
    records = list(parse_index(INDEX.splitlines(keepends=True), uri="http://m/", suite="trixie"))
    assert [(r.name, r.version, r.arch, r.size, r.sha256[0]) for r in records] == [
        ("bash", "5.2-1", "amd64", 123, "a"),
        ("bash", "5.3-1", "amd64", 124, "b"),
        ("zlib", "1", "all", 0, "c"),
    ]
    assert records[0].filename == "pool/main/b/bash_5.2-1_amd64.deb"
    assert records[0].stanza.startswith("Package: bash\n")
    assert records[0].stanza.endswith(f"SHA256: {'a' * 64}\n")


def test_only_some_names_of_an_index() -> None:
    lines = INDEX.splitlines(keepends=True)
    assert [r.name for r in parse_index(lines, uri="", suite="", names={"zlib"})] == ["zlib"]
    assert not list(parse_index([], uri="", suite=""))


def test_what_is_gone_is_named_with_what_there_is_now() -> None:
    gone = [
        PackageFile(name=n, version="1", arch="amd64", sha256="0" * 64, filename="x.deb", suite="trixie")
        for n in ("none", "bash")
    ]
    now = list(parse_index(INDEX.splitlines(keepends=True), uri="", suite="trixie"))
    error = apt._gone(gone, now, "E: 404")
    assert error.details.splitlines()[:2] == [
        "bash 1 (trixie, amd64): the mirror has 5.2-1, 5.3-1",
        "none 1 (trixie, amd64): the mirror has no such package",
    ]
    assert "E: 404" in error.details
    assert "2 locked packages are" in error.brief


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert sha256_of(tmp_path / "x").startswith("2d711642b726b044")
    assert sha256_of(tmp_path / "absent") == ""

"""Debian's archive as this host knows it: its apt configuration read, and written again for another suite.

The project names no mirror. Where a host gets Debian from is in its own /etc/apt (sources.list(5): one
line each, or deb822 stanzas); we keep the URIs and the key that signs them and change the suite. Other
archives there (a vendor's packages, a language's repository) are none of our business and are dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from k3img.errors import BuildError, MissingToolError
from k3img.log import warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Suites whose -updates and -security hold anything; a host that lists those of a newer suite adds to it.
RELEASED = ("buster", "bullseye", "bookworm", "trixie", "stable", "oldstable", "oldoldstable")
SUITES = (*RELEASED, "forky", "duke", "sid", "testing", "unstable", "experimental")
POCKETS = ("-updates", "-security", "/updates", "-backports", "-backports-sloppy", "-proposed-updates")

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)

_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<rest>.*)$")
_URI = re.compile(r"^(https?|file|ftp|copy|tor\+https?|mirror\+\w+|mirror)://?\S+$")


@dataclass(frozen=True, kw_only=True)
class Stanza:
    """One archive that apt is told about. `where` is its file; `signed_by` a path, a key's text, or ""."""

    where: str
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_debian(self) -> bool:
        """Whether suites and the component `main` are named as Debian's: needed, but not proof."""
        return (
            "main" in self.components
            and bool(self.suites)
            and all(_base(suite) in SUITES for suite in self.suites)
        )

    @property
    def trust(self) -> int:
        """How surely this is Debian's: 0 signed by its keyring, 1 by any that apt trusts, 2 by its own key.

        Vendors name their suites after Debian's as well, but sign them with a key of their own; so does
        a company that signs its mirror again, which is why these come last instead of never.
        """
        if "debian-archive" in self.signed_by:
            return 0
        return 2 if self.signed_by else 1

    def text(self) -> str:
        """The stanza as deb822, ending in a newline."""
        lines = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            "Signed-By": self.signed_by,
            **self.options,
        }
        fields = (f"{key}: {value}\n" for key, value in lines.items() if value)
        return f"# from {self.where}\n" + "".join(fields)


def sources(
    suite: str,
    mirror: str | None = None,
    *,
    components: Sequence[str] = ("main",),
    check_valid_until: bool = True,
    etc: Path = Path("/etc/apt"),
    keyrings: Sequence[Path] = KEYRINGS,
) -> str:
    """deb822 text that gives apt `suite` from the host's own Debian mirror, or from `mirror`.

    A released suite comes with its -updates and -security. Security updates are the host's even with
    `mirror`, because mirrors seldom carry them; a host without any is warned about. Without
    `check_valid_until` lists are taken whose date has passed, as those of suites that are never released.
    Raises `BuildError` when the host knows no Debian archive and no mirror is named, and
    `MissingToolError` when Debian's keyring, needed to check signatures, is not installed.
    """
    host = [stanza for stanza in read(etc) if stanza.is_debian]
    listed = {name for stanza in host for name in stanza.suites}
    released = suite in RELEASED or f"{suite}-updates" in listed
    base = _base_stanza(host, mirror, etc)
    suites = (suite, f"{suite}-updates") if released else (suite,)
    wanted = [_moved(base, suites, components, keyrings)]
    if released:
        security = _best(s for s in host if any(_is_security(name) for name in s.suites))
        if security is not None:
            wanted.append(_moved(security, (f"{suite}-security",), components, keyrings))
        else:
            warning(f"{etc} names no archive with Debian's security updates: {suite} is taken without them")
    if not check_valid_until:
        wanted = [replace(s, options={**s.options, "Check-Valid-Until": "no"}) for s in wanted]
    return "\n".join(stanza.text() for stanza in wanted)


def read(etc: Path) -> list[Stanza]:
    """Every enabled `deb` archive that `etc` names; files and lines that cannot be read are skipped."""
    found: list[Stanza] = []
    for file in (etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))):
        if file.suffix not in (".list", ".sources"):
            continue
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += parse(text, str(file), deb822=file.suffix == ".sources")
    return found


def parse(text: str, where: str, *, deb822: bool) -> list[Stanza]:
    """The enabled `deb` archives in the text of one file."""
    return list(_parse_deb822(text, where) if deb822 else _parse_lines(text, where))


def _parse_lines(text: str, where: str) -> Iterator[Stanza]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match is None:
            continue
        options = _options(match["options"] or "")
        yield Stanza(
            where=where,
            uris=_expanded([match["uri"]]),
            suites=(match["suite"],),
            components=tuple(match["rest"].split()),
            signed_by=options.get("signed-by", ""),
            options=_kept(options),
        )


def _options(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split())
    return {key.lower(): value for key, _, value in pairs}


def _parse_deb822(text: str, where: str) -> Iterator[Stanza]:
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for block in re.split(r"\n[ \t]*\n+", kept):
        fields = _fields(block)
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").strip().lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        yield Stanza(
            where=where,
            uris=_expanded(fields.get("uris", "").split()),
            suites=tuple(fields.get("suites", "").split()),
            components=tuple(fields.get("components", "").split()),
            signed_by=fields.get("signed-by", "").strip(),
            options=_kept(fields),
        )


def _fields(block: str) -> dict[str, str]:
    """A stanza's fields by lower-case name; continuation lines stay, as apt wants them, in the value."""
    fields: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if line[:1] in (" ", "\t") and name:
            fields[name] += f"\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _kept(options: Mapping[str, str]) -> dict[str, str]:
    """Of the options only the two that an archive of snapshots needs; never one that loosens signatures."""
    names = {"check-valid-until": "Check-Valid-Until", "check-date": "Check-Date"}
    return {names[key]: value.strip() for key, value in options.items() if key in names}


def _expanded(uris: Sequence[str]) -> tuple[str, ...]:
    """The URIs, with a local list of mirrors (`mirror+file:`, Debian's cloud images) replaced by its lines.

    The builder's sandbox does not see the host's file, so its content has to travel.
    """
    found: list[str] = []
    for uri in uris:
        if uri.startswith("mirror+file:"):
            path = Path("/" + uri.removeprefix("mirror+file:").lstrip("/"))
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except OSError:
                continue
            found += [line.split()[0] for line in lines if line.split() and not line.startswith("#")]
        elif _URI.match(uri):
            found.append(uri)
    return tuple(found)


def _base(suite: str) -> str:
    for pocket in POCKETS:
        if suite.endswith(pocket):
            return suite.removesuffix(pocket)
    return suite


def _is_security(suite: str) -> bool:
    return suite.endswith(("-security", "/updates"))


def _best(stanzas: Iterable[Stanza]) -> Stanza | None:
    """The stanza that is most surely Debian's; the first of equals."""
    return min((s for s in stanzas if s.uris), key=lambda stanza: stanza.trust, default=None)


def _base_stanza(host: Sequence[Stanza], mirror: str | None, etc: Path) -> Stanza:
    if mirror is not None:
        if not _URI.match(mirror):
            raise BuildError(
                f"os.mirror: {mirror!r} is not the address of an apt archive",
                hint="It looks like https://HOST/debian or file:///srv/debian.",
            )
        return Stanza(where="os.mirror", uris=(mirror,), suites=(), components=())
    best = _best(s for s in host if any(name in SUITES for name in s.suites))
    if best is None:
        raise BuildError(
            f"{etc} names no Debian archive: this host does not say where Debian's packages come from",
            hint="Name one in the profile: `os: {mirror: URI}`.",
        )
    return best


def _moved(
    stanza: Stanza, suites: tuple[str, ...], components: Sequence[str], keyrings: Sequence[Path]
) -> Stanza:
    """The stanza for other suites, with a key: its own if it has one, else Debian's."""
    signed_by = stanza.signed_by
    if stanza.trust < 2 and not (signed_by.startswith("/") and Path(signed_by).exists()):
        keyring = next((path for path in keyrings if path.exists()), None)
        if keyring is None:
            raise MissingToolError(
                "Debian's archive keyring is not installed, so packages cannot be checked",
                hint="Install the package debian-archive-keyring (`ci/setup` does).",
            )
        signed_by = str(keyring)
    return Stanza(
        where=stanza.where,
        uris=stanza.uris,
        suites=suites,
        components=tuple(components),
        signed_by=signed_by,
        options=stanza.options,
    )

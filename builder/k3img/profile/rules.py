"""Rules for single values of a profile, in the form of `k3img.node.check`: a fault or None."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from urllib.parse import urlsplit

from k3img.node import check
from k3img.node.check import Fault
from k3img.profile.sink import suggest

MAX_NAME = 18
"""Characters of a profile's name: it is the ImageId, part of GPT labels (36 characters)."""

VERSION = r"v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[0-9]+)?\+(k3s|standin)[0-9]+"
"""A release of k3s, or of the stand-in that tests run."""

PACKAGE = "[a-z0-9][a-z0-9+.-]+"
MODULE = "[A-Za-z0-9_-]+|([a-z0-9_-]+/)+"
FIRMWARE = r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*/?"
PROXY = r"https?://([^/@:\s]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?/?"
OVERLAY = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
NAME = f"[a-z0-9]([-a-z0-9]{{0,{MAX_NAME - 2}}}[a-z0-9])?"
SUITE = "[a-z][a-z-]*"
URL = r"https?://\S+"

IMAGE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.lz4", ".tar.bz2")
MANIFEST_ENDINGS = (".yaml", ".yml", ".json")


def profile_name(text: str) -> Fault | None:
    """A profile's name: one RFC 1123 label that fits into GPT labels."""
    if len(text) > MAX_NAME:
        hint = "It becomes part of partition labels, which are short."
        return Fault(f"{text!r} has {len(text)} characters, {MAX_NAME} are allowed", hint)
    return check.dns_label(text)


def k3s_version(text: str) -> Fault | None:
    """A version that names one release."""
    if re.fullmatch(VERSION, text):
        return None
    hint = "Write it as the release is called, such as v1.36.3+k3s1."
    return Fault(f"{text!r} is no version of k3s", hint)


def package(text: str) -> Fault | None:
    """A Debian package's name (Debian policy 5.6.1)."""
    if re.fullmatch(PACKAGE, text):
        return None
    hint = "Write the name alone: versions are kept by `k3img lock`." if re.search("[=/ ]", text) else ""
    return Fault(f"{text!r} is no name of a Debian package", hint)


def debian_version(text: str) -> Fault | None:
    """A version of a Debian package (Debian policy 5.6.12)."""
    if re.fullmatch(r"([0-9]+:)?[0-9][A-Za-z0-9.+~-]*", text):
        return None
    return Fault(
        f"{text!r} is no version of a Debian package", "Write it as apt does, such as 2026.10~rc5-1."
    )


def suite(text: str) -> Fault | None:
    """The name of a Debian suite."""
    if re.fullmatch(SUITE, text):
        return None
    return Fault(f"{text!r} is no name of a Debian suite", "Write one such as trixie, forky or experimental.")


def timezone(text: str) -> Fault | None:
    """A name of the time zone database, as far as this machine knows it."""
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}", text):
        return Fault(f"{text!r} is no time zone", "Write one such as Europe/Berlin or Etc/UTC.")
    try:
        zoneinfo.ZoneInfo("Etc/UTC")
    except zoneinfo.ZoneInfoNotFoundError:
        return None  # a machine without the database cannot tell
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        zones = sorted(zoneinfo.available_timezones())
        hint = suggest(text, zones) or "Write one such as Europe/Berlin or Etc/UTC."
        return Fault(f"{text!r} is no time zone", hint)
    return None


def url(text: str) -> Fault | None:
    """An http or https address without a password."""
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and parts.hostname and not check.host(parts.hostname)
    except ValueError:
        fine = False
    if not fine or re.search(r"\s", text):
        return Fault(f"{text!r} is no URL", "Write one such as https://mirror.example/debian.")
    return None


def module(text: str) -> Fault | None:
    """A kernel module's name, or a folder of them that ends with a slash."""
    if re.fullmatch(MODULE, text):
        return None
    return Fault(f"{text!r} is no kernel module", "Write a name such as nvme, or a folder such as fs/xfs/.")


def firmware(text: str) -> Fault | None:
    """A file or a folder below /usr/lib/firmware."""
    if re.fullmatch(FIRMWARE, text):
        return None
    hint = "Write it relative to /usr/lib/firmware, a folder such as rtl_nic/."
    return Fault(f"{text!r} is no firmware file", hint)


def relative_path(text: str) -> Fault | None:
    """A file of the project, relative to its top folder and inside it."""
    parts = text.split("/")
    # The lengths are those that file systems allow.
    fine = all(part not in {"", ".", ".."} and len(part.encode()) <= 255 for part in parts)
    if not fine or len(text.encode()) > 2000 or "\0" in text:
        return Fault(f"{text!r} is no path inside the project", "Write it relative to the project's folder.")
    return None


def image_file(text: str) -> Fault | None:
    """An archive of container images, by its ending (what k3s imports), or a list of images to pull."""
    if text.endswith((*IMAGE_ENDINGS, ".txt")):
        return relative_path(text)
    return Fault(
        f"{text!r} is no archive of images", f"k3s imports {' '.join(IMAGE_ENDINGS)} and .txt lists."
    )


def manifest_file(text: str) -> Fault | None:
    """A manifest; k3s names an Addon after it, so its name must be an RFC 1123 name."""
    if not text.endswith(MANIFEST_ENDINGS):
        return Fault(f"{text!r} is no manifest", f"k3s applies {' '.join(MANIFEST_ENDINGS)} files.")
    stem = text.rpartition("/")[2].rpartition(".")[0]
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", stem):
        return Fault(f"the file name {stem!r} cannot name an Addon of k3s", "Use a-z, 0-9, '-' and '.'.")
    return relative_path(text)


def overlay(text: str) -> Fault | None:
    """The name of a folder in overlays/."""
    if re.fullmatch(OVERLAY, text):
        return None
    return Fault(f"{text!r} is no name of an overlay", "Write the name of a folder in overlays/.")


def proxy(text: str) -> Fault | None:
    """The URL of an HTTP proxy, without a user."""
    found = re.fullmatch(PROXY, text)
    if found is None or check.host(found[1].strip("[]")) is not None:
        return Fault(f"{text!r} is no proxy", "Write http://NAME:PORT, or https://.")
    return None


def no_proxy(text: str) -> Fault | None:
    """What is reached without the proxy: a name, a domain with a leading dot, an address or a network."""
    if check.host(text.lstrip(".")) is None or _network(text):
        return None
    return Fault(f"{text!r} is no name, address or network", "Such as .example.org or 192.168.7.0/24.")


def _network(text: str) -> bool:
    try:
        return bool(ipaddress.ip_network(text))
    except ValueError:
        return False


def registries_key(text: str) -> Fault | None:
    """A top-level key of registries.yaml."""
    known = ("mirrors", "configs")
    return (
        None if text in known else Fault("unknown key", suggest(text, known) or "Known are mirrors, configs.")
    )

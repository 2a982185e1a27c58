"""Power cut while writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from k3img.cluster.api import condition
from k3img.verify import identity, writes
from k3img.vm.spec import API_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.life import Life

WRITES = 40
SQLITE = "/var/lib/rancher/k3s/server/db/state.db"


def test_cut_while_writing(ready: Life, evidence: Callable[[object], None]) -> None:
    """The power is cut (QEMU is killed) while ConfigMaps are being written."""
    ready.identity = identity.read(ready.machine, ready.api)
    evidence(ready.identity)
    with writes.Writer(ready.kubeconfig, ready.machine.forwarded(API_PORT)) as writer:
        writer.wait_for(WRITES, timeout=60 * ready.machine.stretch)
        ready.machine.crash()
        ready.forget_api()
    ready.acknowledged = dict(writer.acknowledged)
    evidence(f"{len(ready.acknowledged)} writes were acknowledged before the cut")


def test_boots_again(life: Life) -> None:
    """The same disk boots again, and the node becomes Ready."""
    if life.identity is None:
        pytest.skip("the power was not cut")
    life.power_on()
    life.become_ready("after the power cut", since=life.machine.powered_on)


def test_identity(ready: Life, evidence: Callable[[object], None]) -> None:
    """It is still the same node of the same cluster: machine id, names, uids, CA."""
    assert ready.identity is not None
    now = identity.read(ready.machine, ready.api)
    evidence(now)
    assert ready.identity.differences(now) == ()


def test_acknowledged_writes(ready: Life, evidence: Callable[[object], None]) -> None:
    """Every write that was acknowledged before the cut is there, unchanged."""
    found = writes.stored(ready.api)
    evidence(f"{len(ready.acknowledged)} acknowledged, {len(found)} found")
    assert len(ready.acknowledged) >= WRITES
    assert writes.lost(ready.acknowledged, found) == ()


def test_datastore(ready: Life, host: Any, image_info: dict[str, Any]) -> None:
    """The datastore is intact: `PRAGMA integrity_check` on sqlite says ok."""
    if image_info.get("datastore", "sqlite") == "etcd":
        answer = ready.api.request("GET", "/readyz/etcd")
        assert answer.status == 200, answer.text
        return
    script = (
        "import sqlite3, sys; d = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True); "
        "print(d.execute('PRAGMA integrity_check').fetchall())"
    )
    assert host.check_output("python3 -c %s %s", script, SQLITE) == "[('ok',)]"


def test_file_system(host: Any) -> None:
    """ext4 replayed its journal and found no error."""
    device = host.check_output("findmnt -nvo SOURCE /").removeprefix("/dev/")
    assert host.check_output("cat %s", f"/sys/fs/ext4/{device}/errors_count") == "0"
    assert host.run("dmesg | grep -E 'EXT4-fs error|I/O error'").rc == 1


def test_pod_comes_back(ready: Life) -> None:
    """The pod from before the cut runs again."""
    if not ready.has_test_images:
        pytest.skip("no archive of test images was given")
    path = "/api/v1/namespaces/default/pods/web"
    ready.machine.wait_until(
        "the pod to run again",
        lambda: condition(ready.api.get(path), "Ready") == "True",
        timeout=60,
        evidence=lambda: str(ready.api.get(path)["status"]),
    )


def test_settles(life: Life, host: Any) -> None:
    """No unit failed."""
    state = life.machine.execute("systemctl is-system-running --wait", timeout=120)
    assert (state.stdout.strip(), host.check_output("systemctl --failed --plain --no-legend")) == (
        "running",
        "",
    )

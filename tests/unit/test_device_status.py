"""What a person is told: worked out from what is seen, on the console and in status.txt."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.nodes import FakeSystem

from k3img.device import mdns, observe, outcome, report, status
from k3img.device.discover import Report
from k3img.device.image import ImageInfo
from k3img.device.links import Address, Link
from k3img.device.observe import Mood, Seen, View
from k3img.device.outcome import Go, Outcome
from k3img.device.place import Place
from k3img.device.probe import NodeState, Unit, node_state
from k3img.device.system import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUN = Outcome(
    go=Go.RUN, node="x86-abc", hostname="x86-abc", cluster="x86", standalone=True, seed_device="/dev/vda2"
)
UP = Link(name="eth0", carrier=True)
DOWN = Link(name="eth0", carrier=False)
HERE = Address(link="eth0", ip="10.0.2.15")
FIXED = replace(RUN, address="10.0.9.5/24", gateway="10.0.9.1", gateway_line="node.yaml:7")
SILENCE = "the gateway 10.0.9.1 to answer (this node is 10.0.9.5/24, node.yaml:7)"
READY = NodeState(ready=True, version="v1.36.3+standin1")
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask
eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000
"""
KUBECONFIG = "clusters:\n- cluster:\n    server: https://127.0.0.1:6443\n  name: default\n"


@pytest.mark.parametrize(
    ("seen", "mood", "words"),
    [
        (Seen(outcome=None), Mood.STARTING, "k3img-firstboot"),
        (Seen(outcome=Outcome(go=Go.STOP, what="bad", todo="fix")), Mood.STOPPED, "bad"),
        (Seen(outcome=Outcome(go=Go.WAIT, what="a server")), Mood.WAITING, "a server"),
        (Seen(outcome=Outcome(go=Go.REBOOT, what="a restart")), Mood.STARTING, "a restart"),
        (Seen(outcome=RUN), Mood.WAITING, "a network card"),
        (Seen(outcome=RUN, cards=(DOWN,)), Mood.WAITING, "no link on eth0"),
        (Seen(outcome=RUN, cards=(DOWN, Link(name="eth1", carrier=True))), Mood.WAITING, "from DHCP on eth1"),
        (Seen(outcome=RUN, cards=(UP,)), Mood.WAITING, "an address from DHCP on eth0"),
        (Seen(outcome=RUN, cards=(UP,), addresses=(HERE,)), Mood.STARTING, "Kubernetes to start"),
        (Seen(outcome=FIXED, cards=(UP,), addresses=(HERE,), silent=3), Mood.STARTING, "Kubernetes to start"),
        (Seen(outcome=FIXED, cards=(UP,), addresses=(HERE,), silent=4), Mood.WAITING, SILENCE),
        (
            Seen(
                outcome=replace(FIXED, go=Go.JOIN),
                cards=(UP,),
                addresses=(HERE,),
                search=Report(what="a server of cluster shop"),
                silent=4,
            ),
            Mood.WAITING,
            SILENCE,
        ),
        (
            Seen(
                outcome=RUN,
                cards=(UP,),
                addresses=(HERE,),
                unit=Unit(restarts=9),
                last_words="database is malformed",
            ),
            Mood.FAULT,
            "k3s does not start (9 times: database is malformed)",
        ),
        (
            Seen(outcome=RUN, cards=(UP,), addresses=(HERE,), node=NodeState(ready=False, reason="no CNI")),
            Mood.STARTING,
            "node x86-abc to become Ready (no CNI)",
        ),
        (Seen(outcome=RUN, cards=(UP,), addresses=(HERE,), node=READY), Mood.READY, ""),
        (Seen(outcome=RUN, cards=(DOWN,), node=READY), Mood.READY, ""),
    ],
)
def test_the_first_thing_that_is_missing_is_what_it_waits_for(seen: Seen, mood: Mood, words: str) -> None:
    found = observe.view(seen)
    assert found.mood is mood
    assert words in found.what
    if mood in {Mood.WAITING, Mood.FAULT} and seen.outcome is RUN:
        assert found.todo


def test_a_ready_node_without_a_link_says_so() -> None:
    assert observe.view(Seen(outcome=RUN, cards=(DOWN,), node=READY)).notes == ("no link on eth0",)


def test_a_removed_label_is_told_while_the_node_has_it() -> None:
    ready = NodeState(ready=True, labels={"zone": "a"})
    found = observe.view(Seen(outcome=RUN, cards=(UP,), node=ready, gone_labels=("zone", "other")))
    assert len(found.notes) == 1
    assert "kubectl label node x86-abc zone-" in found.notes[0]


@pytest.mark.parametrize(
    "raw", [None, {}, [], {"status": {}}, {"status": {"conditions": None}}, {"status": {"conditions": [1]}}]
)
def test_a_strange_node_is_not_ready(raw: Any) -> None:
    assert not node_state(raw).ready


def test_a_node_object() -> None:
    conditions = [{"type": "Ready", "status": "False", "message": "no CNI"}]
    raw = {"metadata": {"labels": {"a": "b"}}, "status": {"conditions": conditions}}
    assert node_state(raw) == NodeState(ready=False, reason="no CNI", labels={"a": "b"})


INFO = ImageInfo(profile="x86", version="1.2", runtime="v1")


@pytest.mark.parametrize("mood", list(Mood))
def test_every_state_has_its_lines(mood: Mood) -> None:
    view = View(
        mood=mood, what="a thing", todo="do this", addresses=(HERE,), notes=tuple(map(str, range(99)))
    )
    text = report.lines(INFO, RUN, view, 0.0)
    assert "10.0.2.15 (eth0)" in "\n".join(text)
    assert len(text) < 52
    assert mood is Mood.READY or "a thing" in "\n".join(text)
    assert len(report.status_file(text, 0.0)) == 4096


def test_the_machine_line_can_be_taken_apart() -> None:
    view = View(mood=Mood.WAITING, what='no link on "eth0"\n', addresses=(HERE,))
    line = report.machine_line(RUN, view, target="basic.target", usrhash="abc")
    assert line == (
        "k3img: state=waiting node=x86-abc role=server cluster=x86 address=10.0.2.15"
        " target=basic.target usrhash=abc"
        " waits-for=\"no link on 'eth0' \""
    )
    assert (
        report.machine_line(None, View(mood=Mood.STARTING), target="", usrhash="") == "k3img: state=starting"
    )


def test_usrhash_is_read_from_the_kernels_command_line() -> None:
    assert report.usrhash("rw usrhash=0a1b quiet") == "0a1b"
    assert report.usrhash("rw") == ""


@pytest.mark.parametrize("text", [(), ("ü" * 5000,), ("x\0y",), tuple("line" for _ in range(3000))])
def test_status_txt_always_has_one_size_and_is_utf8(text: tuple[str, ...]) -> None:
    data = report.status_file(text, 0.0)
    assert len(data) == 4096
    data.decode()


def test_a_kubeconfig_for_elsewhere() -> None:
    made = report.kubeconfig(KUBECONFIG, "10.0.2.15", "x86-abc")
    assert "server: https://10.0.2.15:6443" in made
    assert "127.0.0.1" not in made


# ---- the loop ----


@dataclass
class FakeNode(FakeSystem):
    """A node whose seed partition is the folder `fat`."""

    fat: Path = field(kw_only=True)

    def run(self, argv: Sequence[str], *, timeout: float = 90, path: str | None = None) -> Ended:
        if argv[0] == "mount":
            Path(argv[-1]).rmdir()
            Path(argv[-1]).symlink_to(self.fat)
        elif argv[0] == "umount":
            Path(argv[-1]).unlink()
            Path(argv[-1]).mkdir()
        return super().run(argv, timeout=timeout)

    def lines(self) -> list[str]:
        return [line for line in self.logged if line.startswith("k3img: ")]


@dataclass
class FakeKube:
    """The API: Ready, not ready, or away."""

    node: Any = None

    def json(self, path: str) -> Any:
        from k3img.device.kube import KubeError

        if self.node is None:
            raise KubeError("away")
        return self.node


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    root = tmp_path / "root"
    for folder in (
        "dev",
        "run/k3img",
        "sys/class/net/eth0/device",
        "sys/class/tty/console",
        "proc/net",
        "etc/rancher/k3s",
    ):
        (root / folder).mkdir(parents=True)
    (root / "sys/class/net/eth0/carrier").write_text("1\n")
    (root / "sys/class/net/eth0/type").write_text("1\n")
    (root / "sys/class/tty/console/active").write_text("tty0 ttyS0\n")
    (root / "proc/cmdline").write_text("rw usrhash=f00d\n")
    (root / "proc/net/route").write_text(ROUTES)
    for name in ("tty1", "ttyS0"):
        (root / "dev" / name).write_text("")
    (tmp_path / "fat").mkdir()
    place = Place(root=root)
    outcome.save(place, RUN)
    return FakeNode(place=place, fat=tmp_path / "fat")


def ready(*, yes: bool = True, labels: dict[str, str] | None = None) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if yes else "False", "reason": "NotYet"}
    return {
        "metadata": {"labels": labels or {}},
        "status": {"conditions": [condition], "nodeInfo": {"kubeletVersion": "v1.36.3"}},
    }


def watch(node: FakeNode) -> tuple[status.Watch, FakeKube]:
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = FakeKube()
    found = status.Watch(node.place, node)
    found._client = kube  # type: ignore[assignment]
    return found, kube


def look(loop: status.Watch) -> None:
    loop.tick()
    loop.system.sleep(status.TICK)


def test_an_ordinary_boot_mounts_the_fat_once(node: FakeNode) -> None:
    loop, kube = watch(node)
    for answer in (None, None, ready(yes=False), ready(), ready(), ready()):
        kube.node = answer
        look(loop)
    mounts = [call for call in node.calls if call.startswith("mount")]
    assert len(mounts) == 1
    assert mounts[0].endswith(f"{node.place.root}/dev/vda2 {node.place.run}/seed")
    text = (node.fat / "status.txt").read_text()
    assert "Ready since" in text
    assert (node.fat / "status.txt").stat().st_size == 4096
    assert "server: https://10.0.2.15:6443" in (node.fat / "kubeconfig.yaml").read_text()
    states = [line.split()[1] for line in node.lines()]
    assert states == ["state=starting", "state=starting", "state=ready"]
    assert "usrhash=f00d" in node.lines()[-1]
    assert "k3s=v1.36.3" in node.lines()[-1]


def test_both_the_screen_and_the_serial_line_are_told(node: FakeNode) -> None:
    loop, _ = watch(node)
    loop.tick()
    for name in ("tty1", "ttyS0"):
        assert "k3img: state=starting" in (node.place.root / "dev" / name).read_text()


def test_only_a_lasting_wait_is_told_to_the_network(node: FakeNode) -> None:
    loop, kube = watch(node)
    mdns.publish(node.place, node="x86-abc", role="server", digits="")
    restart = "systemctl try-restart systemd-resolved.service"
    for answer in (None, ready(yes=False), ready()):
        kube.node = answer
        look(loop)
    assert restart not in node.calls, "an ordinary boot"
    kube.node = None
    (node.place.sys / "class/net/eth0/carrier").write_text("0\n")
    for _ in range(status.MISSES + int(status.LASTING / status.TICK)):
        look(loop)
    assert restart not in node.calls
    for _ in range(20):
        look(loop)
    assert node.calls.count(restart) == 1
    assert "state=waiting" in (node.place.root / mdns.SERVICE).read_text()
    kube.node = ready()
    look(loop)
    assert "state=" in (node.place.root / mdns.SERVICE).read_text(), "at most once in a while"
    node.sleep(mdns.EVERY)
    look(loop)
    assert "state=" not in (node.place.root / mdns.SERVICE).read_text()
    assert node.calls.count(restart) == 2


def test_a_state_that_lasts_is_written_once(node: FakeNode) -> None:
    (node.place.sys / "class/net/eth0/carrier").write_text("0\n")
    loop, _ = watch(node)
    for _ in range(40):
        look(loop)
    assert len([call for call in node.calls if call.startswith("mount")]) == 1
    assert "no link on eth0" in (node.fat / "status.txt").read_text()
    assert len(node.lines()) == 1


def test_one_late_answer_is_no_change(node: FakeNode) -> None:
    loop, kube = watch(node)
    for answer in (ready(), None, None, ready(), ready()):
        kube.node = answer
        look(loop)
    assert len(node.lines()) == 1
    kube.node = None
    for _ in range(status.MISSES + 1):
        look(loop)
    assert "state=starting" in node.lines()[-1]


def test_a_seeded_node_writes_no_secret_and_notes_its_datastore(node: FakeNode) -> None:
    outcome.save(node.place, Outcome(go=Go.RUN, node="pi-1", seed_device="/dev/vda2", bootstrap=True))
    loop, kube = watch(node)
    kube.node = ready()
    loop.tick()
    assert sorted(path.name for path in node.fat.iterdir()) == ["bootstrap.done", "status.txt"]
    assert (node.place.state / "bootstrap.done").exists()


def test_a_moved_node_writes_its_kubeconfig_again(node: FakeNode) -> None:
    loop, kube = watch(node)
    kube.node = ready()
    loop.tick()
    node.address = "10.0.2.99"
    loop.tick()
    assert "https://10.0.2.99:6443" in (node.fat / "kubeconfig.yaml").read_text()


def test_renewed_certificates_reach_the_partition(node: FakeNode) -> None:
    loop, kube = watch(node)
    kube.node = ready()
    for _ in range(3):
        loop.tick()
    assert len([call for call in node.calls if call.startswith("mount")]) == 1
    node.place.kubeconfig.write_text(KUBECONFIG + "renewed: yes\n")
    for _ in range(3):
        loop.tick()
    assert "renewed" in (node.fat / "kubeconfig.yaml").read_text()
    assert len([call for call in node.calls if call.startswith("mount")]) == 2


def test_one_bad_look_does_not_end_the_watching(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Iterator[BaseException | None] = iter([ZeroDivisionError("oh"), None, status.Stopped()])

    def tick(_: status.Watch) -> float:
        if (error := next(looks)) is not None:
            raise error
        return 1.0

    monkeypatch.setattr(status.Watch, "tick", tick)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert status.run(node.place, node) == 0
    assert node.logged == ["ZeroDivisionError: oh"]
    assert (node.place.state / "clock").exists(), "the time is saved at the end"


@pytest.fixture(autouse=True)
def named() -> Iterator[list[bool]]:
    """Whether the node's name is published; nobody has a systemd-resolved here."""
    found = [True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mdns, "published", lambda *_: found[0])
        yield found


def test_a_name_that_systemd_resolved_gave_up_is_claimed_again(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, named: list[bool]
) -> None:
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = FakeKube()
    kube.node = ready()
    restart = "systemctl try-restart systemd-resolved.service"
    named[0] = False
    start(node, kube, monkeypatch)
    node.sleep(60)
    start(node, kube, monkeypatch)
    assert node.calls.count(restart) == 1
    named[0] = True
    node.sleep(60)
    start(node, kube, monkeypatch)
    assert node.calls.count(restart) == 1


def start(node: FakeNode, kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> int:
    """One start of the service; returns how many looks it took."""
    looks: list[status.Watch] = []
    real = status.Watch.tick
    monkeypatch.setattr(status.Watch, "client", lambda _: kube)

    def tick(self: status.Watch) -> None:
        looks.append(self)
        real(self)

    monkeypatch.setattr(status.Watch, "tick", tick)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert status.run(node.place, node) == 0
    monkeypatch.undo()
    return len(looks)


def test_it_ends_when_all_is_told_and_tells_nothing_twice(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = FakeKube()
    kube.node = ready()
    start(node, kube, monkeypatch)
    told, calls = list(node.logged), len(node.calls)
    assert "state=ready" in told[-1]
    assert (node.place.state / "clock").exists(), "once in each boot"
    node.sleep(60)
    assert start(node, kube, monkeypatch) == 1
    assert node.logged == told
    assert not [call for call in node.calls[calls:] if call.startswith("mount")]


def test_a_later_start_sees_what_changed(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = FakeKube()
    kube.node = ready()
    start(node, kube, monkeypatch)
    node.sleep(60)
    kube.node = ready(yes=False)
    looks = iter(range(20))

    def sleep(_: float) -> None:
        if next(looks) >= 8:
            kube.node = ready()

    monkeypatch.setattr(node, "sleep", sleep)
    start(node, kube, monkeypatch)
    assert [line.split()[1] for line in node.lines()][-2:] == ["state=starting", "state=ready"]


def test_one_late_answer_to_a_later_start_is_no_news(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = FakeKube()
    kube.node = ready()
    start(node, kube, monkeypatch)
    told = list(node.logged)
    kube.node = None

    def sleep(_: float) -> None:
        kube.node = ready()

    monkeypatch.setattr(node, "sleep", sleep)
    assert start(node, kube, monkeypatch) == 2
    assert node.logged == told


def test_a_clock_that_jumps_between_two_starts_restarts_k3s(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = FakeKube()
    kube.node = ready()
    start(node, kube, monkeypatch)
    node.clock += 300 * 86400
    start(node, kube, monkeypatch)
    assert node.calls.count("systemctl --no-block try-restart k3s.service") == 1


@dataclass
class Clusters(FakeKube):
    """The API of a cluster, or of another one that knows nothing of this node."""

    cluster: str = "one"
    asked: list[str] = field(default_factory=list)

    def json(self, path: str) -> Any:
        if path.endswith("/services/kubernetes"):
            self.asked.append(path)
            return {"metadata": {"uid": self.cluster}}
        return super().json(path)


AGENT_RESTART = "systemctl --no-block try-restart k3s-agent.service"


@pytest.mark.parametrize(
    ("role", "cluster", "restarts"), [("agent", "two", 1), ("agent", "one", 0), ("server", "two", 0)]
)
def test_an_agent_whose_cluster_began_anew_registers_once_more(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, role: str, cluster: str, restarts: int
) -> None:
    outcome.save(node.place, replace(RUN, role=role))
    node.place.kubeconfig.write_text(KUBECONFIG)
    kube = Clusters(node=ready())
    start(node, kube, monkeypatch)
    asked = len(kube.asked)
    start(node, kube, monkeypatch)
    assert len(kube.asked) == asked, "a Ready node knows its cluster"
    kube.node, kube.cluster = None, cluster
    loop = status.Watch(node.place, node)
    loop._client = kube  # type: ignore[assignment]
    for _ in range(status.MISSES + 5):
        look(loop)
    assert node.calls.count(AGENT_RESTART) == restarts
    kube.node = ready()
    look(loop)
    kube.node = None
    for _ in range(status.MISSES + 2):
        look(loop)
    assert node.calls.count(AGENT_RESTART) == restarts, "once for each new cluster"


def test_a_stopped_node_ends_too(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome.save(node.place, Outcome(go=Go.STOP, what="bad", seed_device="/dev/vda2"))
    start(node, FakeKube(), monkeypatch)
    assert "bad" in (node.fat / "status.txt").read_text()


def test_a_silent_gateway_is_a_note_of_a_ready_node() -> None:
    seen = Seen(outcome=FIXED, cards=(UP,), addresses=(HERE,), node=READY, silent=4)
    assert (observe.view(seen).mood, observe.view(seen).notes) == (Mood.READY, (SILENCE,))
    assert observe.view(replace(seen, silent=3)).notes == ()


ARP = """IP address       HW type     Flags       HW address            Mask     Device
10.0.9.1         0x1         0x{flags}         52:54:00:77:00:01     *        eth0
10.0.9.7         0x1         0x0         00:00:00:00:00:00     *        eth0
"""


def test_a_gateway_is_silent_when_nobody_answers_for_its_address(node: FakeNode) -> None:
    outcome.save(node.place, FIXED)
    table = node.place.root / "proc/net/arp"
    table.parent.mkdir(parents=True, exist_ok=True)
    counts = []
    seen: Seen | None = None
    for flags in ("0", "0", "2", "0", None):
        table.write_text(ARP.format(flags=flags) if flags else ARP.splitlines()[0])
        seen = observe.look(node.place, node, None, with_unit=False, previous=seen)
        counts.append(seen.silent)
    assert counts == [1, 2, 0, 1, 2], "one that nobody asked yet has not answered either"
    assert node.poked == ["10.0.9.1"] * 5


@pytest.mark.parametrize(("flags", "looks"), [("2", 1), ("0", observe.SILENT)])
def test_a_ready_node_is_watched_until_its_gateway_is_known(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, flags: str, looks: int
) -> None:
    outcome.save(node.place, replace(FIXED, seed_device="/dev/vda2"))
    node.place.kubeconfig.write_text(KUBECONFIG)
    (node.place.root / "proc/net/arp").write_text(ARP.format(flags=flags))
    kube = FakeKube()
    kube.node = ready()
    assert start(node, kube, monkeypatch) == looks
    assert (SILENCE in (node.fat / "status.txt").read_text()) is (flags == "0")


def test_a_fat_that_cannot_be_mounted_or_written_stops_nothing(node: FakeNode) -> None:
    node.answers["mount"] = Ended(status=32, output="bad superblock")
    loop, kube = watch(node)
    kube.node = ready()
    node.run = lambda argv, *, timeout=90, path=None: Ended(status=32, output="bad superblock")  # type: ignore[method-assign]
    loop.tick()
    assert any("bad superblock" in line for line in node.logged)


def test_a_clock_that_jumps_restarts_k3s_once(node: FakeNode) -> None:
    loop, kube = watch(node)
    kube.node = ready()
    loop.tick()
    for _ in range(2):
        node.clock += 3 * 86400
        loop.tick()
    assert [call for call in node.calls if "restart" in call] == [
        "systemctl --no-block try-restart k3s.service"
    ]
    assert (node.place.state / "clock").read_text().strip() == str(int(node.clock))


def test_a_small_step_or_one_before_k3s_restarts_nothing(node: FakeNode) -> None:
    loop = status.Watch(node.place, node)
    loop.tick()
    node.clock += 3 * 86400
    loop.tick()
    loop2, kube = watch(node)
    kube.node = ready()
    loop2.tick()
    node.clock += 3600
    loop2.tick()
    assert not [call for call in node.calls if "restart" in call]


def test_the_clock_is_saved_now_and_then(node: FakeNode) -> None:
    loop, kube = watch(node)
    kube.node = ready()
    for _ in range(75):
        loop.tick()
        node.sleep(60)
    assert int((node.place.state / "clock").read_text()) > 1_800_000_000 + 3000


def test_a_label_that_is_gone_is_forgotten(node: FakeNode) -> None:
    node.place.state.mkdir(parents=True)
    (node.place.state / "gone-labels").write_text("a\nb")
    loop, kube = watch(node)
    kube.node = ready(labels={"b": "1"})
    loop.tick()
    assert (node.place.state / "gone-labels").read_text() == "b"


def test_without_a_default_route_services_keep_theirs(node: FakeNode) -> None:
    (node.place.root / "proc/net/route").write_text("Iface\tDestination\n")
    loop, kube = watch(node)
    kube.node = ready()
    loop.tick()
    assert any(call.startswith("ip route replace 10.43.0.0/16 dev eth0 src 10.0.2.15") for call in node.calls)


def test_k3s_that_does_not_start_is_a_fault_with_its_last_words(node: FakeNode) -> None:
    node.answers["systemctl show"] = Ended(
        status=0, output="ActiveState=activating\nNRestarts=7\nResult=exit-code"
    )
    node.answers["journalctl"] = Ended(status=0, output="starting\nfatal: no space left on device")
    loop, _ = watch(node)
    for _ in range(status.UNIT_EVERY):
        look(loop)
    assert "no space left on device" in node.lines()[-1]
    assert "state=fault" in node.lines()[-1]


def test_before_first_boot_has_spoken(node: FakeNode) -> None:
    (node.place.run / "node.json").write_text("{")
    loop = status.Watch(node.place, node)
    loop.tick()
    assert node.lines() == [
        'k3img: state=starting address=10.0.2.15 usrhash=f00d waits-for="k3img-firstboot"'
    ]
    outcome.save(node.place, RUN)
    loop.tick()
    assert "node=x86-abc" in node.lines()[-1]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"go": "x"}', json.dumps({"go": "run", "problems": 1, "notes": []})]
)
def test_a_broken_hand_over_is_as_none(node: FakeNode, text: str) -> None:
    (node.place.run / "node.json").write_text(text)
    assert outcome.load(node.place) is None

"""From a released image to a machine, without starting it; and the commands around it."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from click.testing import CliRunner

from k3img.cli import vm as cli
from k3img.errors import MissingToolError, UsageError
from k3img.image.released import ReleasedImage
from k3img.profile.boards import Board
from k3img.profile.model import Arch
from k3img.verify import boot, run
from k3img.verify.hardware import DISK_DRIVERS, NIC_DRIVERS, PAIRS
from k3img.verify.scenarios import CLUSTERS, SCENARIOS, for_board, runs
from k3img.vm.faults import MachineError
from k3img.vm.spec import Accel, Bus, Network, Nic, argv

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.tools.toolbox import Toolbox
    from k3img.tree import Tree


class Box:
    """A toolbox whose programs are fakes on PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def argv(self, name: str) -> tuple[str, ...]:
        return (name,)

    def version(self, name: str) -> tuple[int, ...]:
        return (10, 0, 13)

    def qemu_data(self, program: str) -> tuple[Path, ...]:
        return ()

    def firmware(self, arch: str) -> Any:
        (self._folder / "vars.fd").touch()
        return SimpleNamespace(code=self._folder / "code.fd", vars=self._folder / "vars.fd")


@pytest.fixture
def box(tmp_path: Path) -> Toolbox:
    return cast("Toolbox", Box(tmp_path))


@pytest.fixture
def image(tmp_path: Path) -> ReleasedImage:
    raw = tmp_path / "x86_1.raw"
    raw.write_bytes(b"image")
    return ReleasedImage(
        folder=tmp_path,
        profile="x86",
        version="1",
        arch=Arch.X86_64,
        board=Board.UEFI,
        raw=raw,
        sha256="",
        runtime="v1",
        standin=False,
        manifest={},
    )


def test_machine_writes_to_an_overlay_only(image: ReleasedImage, box: Toolbox, fake_program: Any) -> None:
    fake_program.add("qemu-img")
    with boot.machine(image, box, accel=Accel.TCG) as machine:
        folder = machine.spec.sockets.folder
        assert folder.is_dir()
        assert str(image.raw) not in " ".join(argv(machine.spec))
        assert not machine.spec.disks[0].durable
        assert "k3img.loop" in machine.spec.credentials
    assert not folder.exists()
    (call,) = fake_program.calls("qemu-img")
    assert call == f"create -q -f qcow2 -b {image.raw} -F raw {folder}/disk.qcow2 {8 << 30}"


@pytest.mark.parametrize(
    ("accel", "extra"),
    [
        (Accel.KVM, "console=ttyS0 systemd.show_status=yes"),
        (Accel.TCG, "console=ttyS0 systemd.show_status=yes mitigations=off"),
    ],
)
def test_what_is_added_to_the_command_line(
    image: ReleasedImage, box: Toolbox, fake_program: Any, accel: Accel, extra: str
) -> None:
    fake_program.add("qemu-img")
    with boot.machine(image, box, accel=accel) as machine:
        assert machine.spec.kernel_extra == extra


def test_kept_disk_is_made_once(
    image: ReleasedImage, box: Toolbox, fake_program: Any, tmp_path: Path
) -> None:
    fake_program.add("qemu-img")
    disk = tmp_path / "kept.qcow2"
    disk.touch()
    with boot.machine(image, box, accel=Accel.TCG, disk=disk) as machine:
        assert machine.spec.disks[0].path == disk
        assert machine.spec.disks[0].durable
    assert disk.exists()
    assert fake_program.calls("qemu-img") == []


def test_test_images_are_read_only(
    image: ReleasedImage, box: Toolbox, fake_program: Any, tmp_path: Path
) -> None:
    fake_program.add("qemu-img")
    with boot.machine(image, box, accel=Accel.TCG, images=tmp_path / "i.tar") as machine:
        last = machine.spec.disks[-1]
    assert (last.serial, last.read_only, last.format) == ("k3imgtest", True, "raw")


def test_disk_that_cannot_be_made(image: ReleasedImage, box: Toolbox, fake_program: Any) -> None:
    fake_program.add("qemu-img", "echo 'no space left on device' >&2; exit 1")
    with (
        pytest.raises(MachineError, match="disks cannot be made") as caught,
        boot.machine(image, box, accel=Accel.TCG),
    ):
        pass
    assert "no space left" in caught.value.details


def test_every_controller_and_card_is_proven() -> None:
    booted = {pair.bus for pair in PAIRS.values()} | {bus for pair in PAIRS.values() for bus in pair.spare}
    assert booted == set(Bus) == set(DISK_DRIVERS)
    # virtio-net is the card of all other checks.
    assert {pair.nic for pair in PAIRS.values()} | {Nic.VIRTIO} == set(Nic) == set(NIC_DRIVERS)
    assert all(pair.hardware().network == Network(nic=pair.nic, internet=True) for pair in PAIRS.values())


def test_scenarios_have_checks(project: Tree) -> None:
    folder = project.root / "tests/image"
    parts = [folder / part for scenario in SCENARIOS.values() for part in scenario.parts]
    for path in parts:
        assert path.is_file() or list(path.glob("test_*.py"))
    named = {path for part in parts for path in (part.glob("test_*.py") if part.is_dir() else [part])}
    assert named == set(folder.glob("*/test_*.py"))


def test_all_are_those_of_the_board() -> None:
    everything = for_board(Board.UEFI)
    assert {"standard", "hardware", *CLUSTERS} <= set(everything)
    assert {"ssh", "first-boot", "boot-chain"}.isdisjoint(everything)
    assert for_board(Board.RPI4) == ("first-boot", "boot-chain")


def test_the_list_names_each_scenario() -> None:
    shown = CliRunner().invoke(cli.verify, ["--scenario", "list"]).output.splitlines()
    assert [row.split()[0] for row in shown] == list(SCENARIOS)


@pytest.mark.parametrize(
    ("chosen", "hardware", "board", "wanted"),
    [
        ((), None, Board.UEFI, ("standard",)),
        ((), "all", Board.UEFI, ("standard", "hardware")),
        (("hardware",), "nvme", Board.UEFI, ("hardware",)),
        (("link-down",), None, Board.UEFI, ("link-down",)),
        ((), None, Board.RPI4, ("boot-chain", "first-boot")),
    ],
)
def test_scenarios(
    chosen: tuple[str, ...], hardware: str | None, board: Board, wanted: tuple[str, ...]
) -> None:
    assert cli._scenarios(chosen, hardware, board) == wanted


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (("standard", "join", "wrong-token"), (("standard",), ("join", "wrong-token"))),
        (("wrong-token", "join", "join"), (("join", "wrong-token"),)),
        (("join", "wait", "wrong-token"), (("join",), ("wait",), ("wrong-token",))),
        (("wrong-token",), (("wrong-token",),)),
        (("moved", "wait"), (("moved",), ("wait",))),
    ],
)
def test_neighbours_that_share_a_bed_run_together(
    asked: tuple[str, ...], wanted: tuple[tuple[str, ...], ...]
) -> None:
    assert runs(asked) == wanted


def test_pairs() -> None:
    assert cli._pairs("nvme") == ("nvme",)
    assert cli._pairs("all") == cli._pairs(None) == tuple(PAIRS)
    with pytest.raises(UsageError, match="no pair floppy"):
        cli._pairs("floppy")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_no_image_says_how_to_build_it(project: Tree, command: Any, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command, ["--tree", str(project.root), "--profile", "x86", "--out", str(tmp_path)]
    )
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2
    assert result.exception.hint == "Build it: k3img build --profile x86"


def test_without_pytest(
    image: ReleasedImage, box: Toolbox, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "k3img.verify.plugin", None)
    with pytest.raises(MissingToolError, match="verify needs") as caught:
        run._run(["standard"], image, box, tree, Accel.TCG, run.Options())
    assert "k3img[verify]" in caught.value.hint


def test_table_of_a_report(
    image: ReleasedImage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from k3img.verify.report import Check, Outcome, Report, to_json

    report = Report(
        profile="x86",
        version="1",
        file="x86_1.raw",
        sha256="ab",
        runtime="v1",
        standin=False,
        accel="tcg",
        qemu="10",
        began="2026-01-01T00:00:00+00:00",
        seconds=61,
        checks=(
            Check(name="boots", group="First boot", outcome=Outcome.PASSED, seconds=60),
            Check(
                name="[red]is ready[/]", group="First boot", outcome=Outcome.FAILED, evidence="because\nof"
            ),
        ),
    )
    cli._print(report, image)
    out = capsys.readouterr().out
    # A log's end is all that many a CI system shows.
    assert out.endswith("✗ [red]is ready[/]\n    because\n    of\n1 of 2 checks passed, 1 failed\n")
    assert json.loads(to_json(report))["ok"] is False


def test_kvm_for_another_architecture_is_refused_not_ignored(
    box: Toolbox, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(UsageError, match="KVM on x86_64 cannot run a guest of arm64") as said:
        cli.chosen_accel("kvm", box, tree, Arch.ARM64)
    assert "--accel" in str(said.value.hint)
    assert cli.chosen_accel("auto", box, tree, Arch.ARM64) is Accel.TCG
    assert cli.chosen_accel("kvm", box, tree, Arch.X86_64) is Accel.KVM


def test_logs_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    for name in ("join-1.console.log", "join-1.qemu.log", "report.html", "join-1.qcow2"):
        (tmp_path / name).touch()
    boot.forget(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["join-1.qcow2", "report.html"]

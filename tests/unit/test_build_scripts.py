"""What mkosi runs on the image's tree, tried on small trees: which modules and firmware stay, how /etc moves.

The few programs that the scripts start (depmod, cp, mkfs.vfat, mcopy) are replaced by what they would do.
"""

from __future__ import annotations

import importlib.util
import json
import lzma
import marshal
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from k3img.build.scripts import finalize, prepare

KERNEL = "6.12.0-amd64"


@dataclass
class Trial:
    """An image's tree, and the programs that were started on it."""

    root: Path
    started: list[str] = field(default_factory=list)

    def add(self, path: str, data: str | bytes = "") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    def link(self, path: str, target: str) -> Path:
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        return link

    def run(self, argv: list[Any], **_: Any) -> None:
        self.started.append(str(argv[0]))
        if argv[0] == "cp":
            copy = shutil.copytree if Path(argv[2]).is_dir() else shutil.copy2
            copy(argv[2], argv[3])

    def files(self, folder: str) -> set[str]:
        base = self.root / folder
        return {
            str(path.relative_to(base)) for path in base.rglob("*") if path.is_symlink() or not path.is_dir()
        }


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    made = Trial(tmp_path / "root")
    made.root.mkdir()
    usr = made.root / "usr"
    for module in (prepare, finalize):
        monkeypatch.setattr(module, "ROOT", made.root)
        monkeypatch.setattr(module.subprocess, "run", made.run)
    for name, path in {"ETC": made.root / "etc", "USR": usr, "UNITS": usr / "lib/systemd/system"}.items():
        monkeypatch.setattr(finalize, name, path)
    (usr / "lib/systemd/system").mkdir(parents=True)
    (usr / "lib/tmpfiles.d").mkdir()
    (made.root / "etc").mkdir()
    return made


# --- prepare: the initrd


def program(trial: Trial, path: str) -> Path:
    made = trial.add(path, "ELF")
    made.chmod(0o755)
    return made


def test_only_wanted_programs_stay_with_what_they_link_to(trial: Trial) -> None:
    for path in ("usr/bin/kmod", "usr/bin/perl", "usr/lib/systemd/systemd-udevd", "usr/lib/udev/v4l_id"):
        program(trial, path)
    trial.link("usr/sbin/modprobe", "../bin/kmod")
    trial.link("usr/sbin/lsmod", "../bin/kmod")
    trial.add("usr/lib/systemd/journald.conf")
    prepare.trim_programs({"modprobe", "systemd-udevd"})
    assert trial.files("usr") == {
        "bin/kmod",
        "sbin/modprobe",
        "lib/systemd/systemd-udevd",
        "lib/systemd/journald.conf",
    }


def test_only_wanted_rules_stay(trial: Trial) -> None:
    trial.add("usr/lib/udev/rules.d/55-dm.rules")
    trial.add("usr/lib/udev/rules.d/78-sound-card.rules")
    prepare.trim_rules({"55-dm.rules"})
    assert trial.files("usr/lib/udev") == {"rules.d/55-dm.rules"}


def test_libraries_stay_that_something_left_needs(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "repart": {"libfdisk.so.1"},
        "libfdisk.so.1.1.0": {"libblkid.so.1"},
        "pam_unix.so": {"libcrypt.so.1"},  # a plug-in in a folder of its own counts as a program
    }
    monkeypatch.setattr(prepare, "needed_libraries", lambda path: needs.get(path.name, set()))
    program(trial, "usr/bin/repart")
    folder = "usr/lib/x86_64-linux-gnu"
    for name in (
        "libfdisk.so.1.1.0",
        "libblkid.so.1",
        "libcrypt.so.1",
        "libssl.so.3",
        "ld-linux-x86-64.so.2",
    ):
        trial.add(f"{folder}/{name}")
    trial.link(f"{folder}/libfdisk.so.1", "libfdisk.so.1.1.0")
    trial.add(f"{folder}/security/pam_unix.so")
    prepare.trim_libraries()
    assert trial.files(folder) == {
        "libfdisk.so.1",
        "libfdisk.so.1.1.0",
        "libblkid.so.1",
        "libcrypt.so.1",
        "ld-linux-x86-64.so.2",
        "security/pam_unix.so",
    }


def test_a_real_program_names_its_libraries(tmp_path: Path) -> None:
    assert any(name.startswith("libc.so") for name in prepare.needed_libraries(Path("/bin/sh").resolve()))
    assert prepare.needed_libraries(Path(__file__)) == set()


def test_units_go_with_their_programs(trial: Trial) -> None:
    program(trial, "usr/bin/systemctl")
    program(trial, "usr/lib/systemd/systemd-udevd")
    units = {
        "udevd": "ExecStart=/usr/lib/systemd/systemd-udevd\n",
        "cleanup": "ExecStart=systemctl --no-block isolate x\n",
        "optional": "ExecStart=-@/usr/bin/gone gone\n",
        "hwdb": "ExecStart=systemd-hwdb update\n",
        "nothing": "Description=starts nothing\n",
    }
    for name, text in units.items():
        trial.add(f"usr/lib/systemd/system/{name}.service", f"[Service]\n{text}")
        trial.link(f"usr/lib/systemd/system/sysinit.target.wants/{name}.service", f"../{name}.service")
    trial.link("usr/lib/systemd/system/masked.service", "/dev/null")
    prepare.trim_units()
    stays = {"udevd", "cleanup", "nothing"}
    assert trial.files("usr/lib/systemd/system") == {
        "masked.service",
        *(f"{name}.service" for name in stays),
        *(f"sysinit.target.wants/{name}.service" for name in stays),
    }


# --- prepare: the kernel

DEPENDENCIES = {
    "kernel/fs/erofs/erofs": (),
    "kernel/fs/overlayfs/overlay": (),
    "kernel/net/netfilter/xt_comment": ("kernel/net/netfilter/x_tables",),
    "kernel/net/netfilter/x_tables": (),
    "kernel/drivers/net/virtio_net": ("kernel/net/core/failover",),
    "kernel/net/core/failover": (),
    "kernel/crypto/crc32c_generic": (),
    "kernel/fs/ext4/ext4": ("kernel/fs/jbd2/jbd2",),
    "kernel/fs/jbd2/jbd2": (),
    "kernel/sound/snd-hda": (),
}


def kernel(trial: Trial, *, softdeps: str = "", config: str = "CONFIG_OVERLAY_FS=m\n") -> Path:
    folder = trial.root / f"usr/lib/modules/{KERNEL}"
    for name in DEPENDENCIES:
        trial.add(f"usr/lib/modules/{KERNEL}/{name}.ko.xz", lzma.compress(name.encode()))
    dep = (f"{name}.ko.xz: {' '.join(f'{n}.ko.xz' for n in needs)}\n" for name, needs in DEPENDENCIES.items())
    (folder / "modules.dep").write_text("".join(dep))
    (folder / "modules.softdep").write_text(softdeps)
    (folder / "modules.builtin").write_text("kernel/drivers/ata/libata.ko\n")
    trial.add(f"boot/config-{KERNEL}", config)
    return folder


def trim(trial: Trial, folder: Path, **spec: Any) -> tuple[list[str], set[str]]:
    """Problems, and the names of the modules that are left."""
    problems = prepare.trim_kernel(
        folder, {"modules": [], "required": [], "firmware": [], "configs": [], **spec}
    )
    return problems, {path.name.removesuffix(".ko") for path in folder.rglob("*.ko")}


def test_wanted_modules_stay_with_what_they_need(trial: Trial) -> None:
    folder = kernel(trial)
    problems, left = trim(trial, folder, modules=["virtio-net", "fs/erofs/", "xt_*", "not_in_this_kernel"])
    assert problems == []
    assert left == {"virtio_net", "failover", "erofs", "xt_comment", "x_tables"}
    assert (folder / "kernel/fs/erofs/erofs.ko").read_bytes() == b"kernel/fs/erofs/erofs"
    assert not list(folder.rglob("*.xz"))
    assert not (folder / "kernel/sound").exists()
    assert trial.started == ["depmod", "depmod"]
    about = json.loads((trial.root / "usr/lib/k3img/kernel.json").read_text())
    assert about["version"] == KERNEL
    assert "virtio-net" in about["modules"]


def test_dashes_and_underscores_are_the_same(trial: Trial) -> None:
    folder = kernel(trial)
    assert trim(trial, folder, required=["virtio_net", "snd_hda"])[1] == {"virtio_net", "failover", "snd-hda"}


def test_soft_dependencies_come_along(trial: Trial) -> None:
    text = "# a comment\nsoftdep ext4 pre: crc32c_generic post: nothing\nsoftdep broken\n"
    folder = kernel(trial, softdeps=text)
    assert trim(trial, folder, modules=["ext4"])[1] == {"ext4", "jbd2", "crc32c_generic"}


def test_a_folder_is_no_prefix_of_a_name(trial: Trial) -> None:
    folder = kernel(trial)
    assert trim(trial, folder, modules=["fs/ext/", "fs/jbd2/jbd2"])[1] == {"jbd2"}


def test_required_modules_may_be_built_in_but_not_missing(trial: Trial) -> None:
    folder = kernel(trial)
    problems, _ = trim(trial, folder, required=["libata", "overlay", "zfs", "br*"])
    assert [problem.partition(":")[0] for problem in problems] == ["module zfs", "module br*"]
    assert "os.modules" in problems[0]


def test_what_k3s_needs_of_the_kernel(trial: Trial) -> None:
    config = "CONFIG_OVERLAY_FS=m\nCONFIG_CGROUPS=y\n# CONFIG_VXLAN is not set\nCONFIG_BRIDGE=m\n"
    folder = kernel(trial, config=config)
    wanted = [["OVERLAY_FS", "overlay"], ["CGROUPS", ""], ["VXLAN", "vxlan"], ["BRIDGE", "bridge"]]
    problems, left = trim(trial, folder, configs=wanted)
    assert problems == [
        f"CONFIG_VXLAN is not set in kernel {KERNEL}; k3s needs it",
        "CONFIG_BRIDGE is a module, and bridge is not in the image; k3s needs it",
    ]
    assert left == {"overlay"}, "a module that k3s needs stays without being asked for"


def test_two_kernels_are_one_too_many(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel(trial)
    (trial.root / "usr/lib/modules/6.1.0").mkdir()
    monkeypatch.setenv("SRCDIR", str(tmp_path))
    (tmp_path / "prepare.json").write_text(json.dumps({"remove": [], "kernel": {"modules": []}}))
    trial.add("var/lib/dpkg/status")
    assert prepare.main() == 1
    assert "one kernel expected, found: ['6.1.0', '6.12.0-amd64']" in capsys.readouterr().err


def test_the_script_fails_with_everything_that_is_missing(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel(trial)
    monkeypatch.setenv("SRCDIR", str(tmp_path))
    trial.add("var/lib/dpkg/status")
    spec = {"modules": [], "required": ["zfs"], "firmware": [], "configs": [["KVM", "kvm"]]}
    (tmp_path / "prepare.json").write_text(json.dumps({"remove": ["/boot/gone*"], "kernel": spec}))
    assert prepare.main() == 1
    said = capsys.readouterr().err
    assert "module zfs" in said
    assert "CONFIG_KVM" in said


STATUS = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1:1.3
Description: compression
 Version: is not a field here

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 2

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.152
"""


def test_usr_names_its_packages(trial: Trial) -> None:
    trial.add("var/lib/dpkg/status", STATUS)
    prepare.list_packages()
    assert (trial.root / "usr/lib/k3img/packages").read_text() == "adduser 3.152 all\nzlib1g 1:1.3 amd64\n"


def test_files_are_removed_by_absolute_globs(trial: Trial) -> None:
    trial.add("usr/share/doc/a/copyright")
    trial.add("usr/bin/perl5")
    trial.add("usr/bin/python3")
    trial.link("usr/share/man", "doc")
    prepare.remove(["/usr/share/doc", "/usr/share/man", "/usr/bin/perl*", "/nothing/here"])
    assert trial.files("usr") == {"bin/python3"}


def test_wanted_device_trees_go_to_the_esp_and_the_others_go(trial: Trial) -> None:
    folder = "usr/lib/linux-image-6.12.0-arm64"
    trial.add(f"{folder}/broadcom/bcm2711-rpi-4-b.dtb", "pi")
    trial.add(f"{folder}/rockchip/rk3399.dtb")
    prepare.keep_device_trees(["broadcom/bcm2711-rpi-4-*.dtb"])
    assert trial.files("efi") == {"bcm2711-rpi-4-b.dtb"}
    assert not (trial.root / folder).exists()


def test_a_device_tree_that_is_not_there(trial: Trial) -> None:
    trial.add("usr/lib/linux-image-6.12.0-arm64/broadcom/other.dtb")
    with pytest.raises(SystemExit, match="no device tree broadcom/bcm2711"):
        prepare.keep_device_trees(["broadcom/bcm2711-rpi-4-b.dtb"])


def test_a_kernel_without_device_trees(trial: Trial) -> None:
    prepare.keep_device_trees([])
    assert not (trial.root / "efi").exists()


def test_firmware_keeps_the_targets_of_links(trial: Trial) -> None:
    trial.add("usr/lib/firmware/rtl_nic/rtl8168.fw")
    trial.add("usr/lib/firmware/intel/one.bin")
    trial.add("usr/lib/firmware/intel/two.bin")
    trial.add("usr/lib/firmware/brcm/real.bin")
    trial.link("usr/lib/firmware/brcm/link.bin", "real.bin")
    trial.link("usr/lib/firmware/brcm/dangling.bin", "intel/two.bin")
    trial.add("usr/lib/firmware/amdgpu/big.bin")
    kept = prepare.trim_firmware(["rtl_nic/", "brcm/link.bin", "intel/o*", "none/*"])
    assert trial.files("usr/lib/firmware") == {
        "rtl_nic/rtl8168.fw",
        "brcm/link.bin",
        "brcm/real.bin",
        "intel/one.bin",
    }
    assert kept == ["brcm/link.bin", "brcm/real.bin", "intel/one.bin", "rtl_nic/rtl8168.fw"]
    assert not (trial.root / "usr/lib/firmware/amdgpu").exists()


def test_no_firmware_at_all(trial: Trial) -> None:
    assert prepare.trim_firmware(["rtl_nic"]) == []


# --- finalize: /etc and units


def test_alternatives_become_links_inside_usr(trial: Trial) -> None:
    trial.add("usr/bin/mawk")
    trial.link("usr/bin/awk", "/etc/alternatives/awk")
    trial.link("etc/alternatives/awk", "/usr/bin/mawk")
    trial.link("usr/bin/pager", "/etc/alternatives/pager")
    trial.link("etc/alternatives/pager", "/usr/bin/less")
    trial.link("usr/sbin/iptables", "/etc/alternatives/iptables")
    finalize.resolve_alternatives()
    assert str((trial.root / "usr/bin/awk").readlink()) == "mawk"
    assert trial.files("usr") == {"bin/mawk", "bin/awk"}, "what leads nowhere is gone"


def test_enabled_units_move_to_usr(trial: Trial) -> None:
    unit = "usr/lib/systemd/system"
    trial.add(f"{unit}/k3s.service")
    trial.link(f"{unit}/ready.target.wants/ours.service", "../ours.service")
    trial.link("etc/systemd/system/multi-user.target.wants/k3s.service", f"/{unit}/k3s.service")
    trial.link("etc/systemd/system/ready.target.wants/ours.service", "/elsewhere")
    trial.link("etc/systemd/system/masked.service", "/dev/null")
    trial.link("etc/systemd/system/dbus-x.service", f"/{unit}/k3s.service")
    finalize.move_enablement()
    units = trial.root / unit
    assert str((units / "multi-user.target.wants/k3s.service").readlink()) == "../k3s.service"
    assert str((units / "masked.service").readlink()) == "/dev/null"
    assert str((units / "dbus-x.service").readlink()) == "k3s.service"
    assert str((units / "ready.target.wants/ours.service").readlink()) == "../ours.service"
    assert not (trial.root / "etc/systemd/system").exists()


def test_masked_units_replace_what_was_there(trial: Trial) -> None:
    trial.add("usr/lib/systemd/system/getty@.service", "[Unit]")
    finalize.mask(["getty@.service", "never-there.service"])
    units = trial.root / "usr/lib/systemd/system"
    assert {str(path.readlink()) for path in units.iterdir()} == {"/dev/null"}


def test_factory_etc(trial: Trial) -> None:
    trial.add("etc/passwd", "root")
    trial.add("etc/ssl/certs/a.pem")
    trial.add("etc/machine-id", "secret")
    trial.add("etc/ssh/keep")
    trial.add("etc/ssh/ssh_host_ed25519_key", "secret")
    trial.add("etc/systemd/system.conf")
    (trial.root / "etc/empty").mkdir()
    trial.link("etc/rmt", "/usr/sbin/rmt")
    trial.add("usr/share/factory/etc/old")
    trial.add("usr/lib/tmpfiles.d/debian.conf")
    trial.add("usr/lib/python3.13/sitecustomize.py")
    finalize.make_factory_etc()
    assert trial.files("usr/share/factory/etc") == {"passwd", "ssl/certs/a.pem", "ssh/keep", "rmt"}
    rules = (trial.root / "usr/lib/tmpfiles.d/00-k3img-etc.conf").read_text().splitlines()
    assert "C /etc/passwd - - - -" in rules
    assert "L /etc/ssl - - - -" in rules
    assert "d /etc/systemd 0755 - - -" in rules
    assert not any("machine-id" in rule or "/etc/empty" in rule for rule in rules)
    assert not (trial.root / "usr/lib/tmpfiles.d/debian.conf").exists()
    assert not (trial.root / "usr/lib/python3.13/sitecustomize.py").exists()


def test_the_kernel_is_hidden_where_mkosi_still_finds_it(trial: Trial) -> None:
    vmlinuz = trial.add(f"usr/lib/modules/{KERNEL}/vmlinuz", "kernel")
    trial.add("boot/config-6")
    trial.add("boot/EFI/Linux/keep.efi")
    trial.link("boot/vmlinuz", "gone")
    (trial.root / ".k3img").mkdir()
    finalize.hide_kernel()
    assert trial.files("boot") == {"EFI/Linux/keep.efi"}
    assert vmlinuz.read_text() == "kernel"
    assert vmlinuz.resolve() == trial.root / f".k3img/vmlinuz-{KERNEL}"
    finalize.hide_kernel()
    assert vmlinuz.read_text() == "kernel"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("bin/busybox", "bin"),
        ("lib/systemd/systemd", "lib/systemd"),
        ("lib/systemd/system/k3s.service", "lib/systemd"),
        ("lib/os-release", "lib"),
        ("lib/k3s/bin/k3s", "lib/k3s/bin/k3s"),
        ("lib/k3s/bin/aux/ip", "lib/k3s/bin/aux"),
        ("lib/modules/6.12/kernel/x.ko", "lib/modules"),
        ("share/zoneinfo/UTC", "share/zoneinfo"),
        ("top", "top"),
    ],
)
def test_the_branch_of_a_file_in_the_size_tree(path: str, part: str) -> None:
    assert finalize.part_of(tuple(path.split("/"))) == part


def test_the_report_counts_each_file_once(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.add("usr/lib/k3img/kernel.json", '{"version": "6"}')
    trial.add("usr/bin/a", "12345")
    trial.add("usr/bin/b", "123")
    trial.link("usr/bin/c", "a")
    monkeypatch.setenv("OUTPUTDIR", str(trial.root))
    finalize.report()
    about = json.loads((trial.root / "k3img-content.json").read_text())
    assert about["kernel"] == {"version": "6"}
    assert about["sizes"] == {"bin": 8, "lib/k3img": 16}


def test_the_seed_has_its_size_and_a_readme_for_any_laptop(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795000000")
    finalize.make_seed({"size": 1 << 20, "readme": "one\ntwo\n"})
    assert (trial.root / ".k3img/seed.fat").stat().st_size == 1 << 20
    readme = trial.root / ".k3img/README.txt"
    assert readme.read_bytes() == b"one\r\ntwo\r\n"
    assert readme.stat().st_mtime == 1795000000
    assert trial.started == ["mkfs.vfat", "mcopy"]


def test_python_runs_without_its_library_s_sources(trial: Trial) -> None:
    own = "usr/lib/python{}.{}".format(*sys.version_info)
    trial.add(f"{own}/json/__init__.py", "A = 1\n")
    trial.add(f"{own}/broken.py", "not python at all\n")
    trial.add(f"{own}/json/__pycache__/old.cpython-313.pyc")
    trial.add("usr/lib/python3/dist-packages/yaml/__init__.py", "B = 2\n")
    prepare.compile_python()
    assert trial.files(own) == {"json/__init__.pyc", "broken.py"}
    assert trial.files("usr/lib/python3") == {"dist-packages/yaml/__init__.pyc"}


def test_another_python_keeps_its_sources(trial: Trial) -> None:
    trial.add("usr/lib/python3.1/json.py", "A = 1\n")
    prepare.compile_python()
    assert trial.files("usr/lib/python3.1") == {"json.py"}


def test_our_code_is_compiled_beside_its_sources(trial: Trial) -> None:
    trial.add("usr/lib/k3img/k3img/log.py", "C = 3\n")
    finalize.compile_code()
    assert {Path(name).suffix for name in trial.files("usr/lib/k3img")} == {".py", ".pyc"}


def test_all_images_of_a_plan_are_alike(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.lchown", lambda path, uid, gid: given.append((path.name, uid, gid)))
    program = trial.add("usr/bin/mount")
    program.chmod(0o6755)
    private = trial.add("usr/lib/k3s/bin/k3s")
    private.chmod(0o750)
    link = trial.link("usr/bin/link", "mount")
    outside = trial.add("efi/config.txt")
    outside.chmod(0o4755)
    finalize.make_alike(1_795_000_000)
    assert {("mount", 0, 0), ("link", 0, 0)} < set(given)
    assert not any(name == "config.txt" for name, _, _ in given)
    assert [path.stat().st_mode & 0o7777 for path in (program, private, outside)] == [0o755, 0o750, 0o4755]
    times = {path.lstat().st_mtime_ns for path in (trial.root, program, link, outside, link.parent)}
    assert times == {1_795_000_000 * 10**9}


def test_accounts_do_not_tell_on_which_day_packages_were_installed(trial: Trial) -> None:
    shadow = trial.add(
        "usr/share/factory/etc/shadow", "root:*:20785:0:99999:7:::\nntp:!*:20784:::::1:\nx:*::::::\n"
    )
    shadow.chmod(0o640)
    finalize.date_accounts(20_000 * 86400 + 5)
    assert shadow.read_text() == "root:*:20000:0:99999:7:::\nntp:!*:20000:::::1:\nx:*::::::\n"
    assert shadow.stat().st_mode & 0o777 == 0o640


def test_bytecode_does_not_tell_what_else_was_compiled() -> None:
    code = compile("def f(a): return a.first + 'some text'\ng = 'some text'\n", "f.py", "exec")
    head = importlib.util.MAGIC_NUMBER.ljust(16, b"\0")
    shared, plain = (head + marshal.dumps(code, version) for version in (4, 2))
    assert shared != plain
    assert finalize.same_bytecode(shared) == finalize.same_bytecode(plain) == plain
    assert marshal.loads(plain[16:]) == code
    other = b"\1\2\3\4 of another Python"
    assert finalize.same_bytecode(other) == other

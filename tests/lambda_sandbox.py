"""What surrounds a function on Lambda, made of this machine's control groups and bubblewrap.

CPU, in proportion to memory: 1,769 MB are one CPU's time.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html

Memory, of all processes together, by a control group: what is over is killed by the kernel, as in Lambda's machine. A
limit of address space (RLIMIT_AS) would count what a JVM reserves and never touches.

Nothing runs between invocations: the group is frozen, with processes that have sessions of their own, as our JVM has.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html

The file system is read-only but for /tmp, and the user has no name.
https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

MB_A_CPU = 1769
_GROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000  # so short that no short request gets by with the quota of one period
_WITHIN_S = 10.0
_DEVICES = ("null", "zero", "full", "random", "urandom")
USER, GROUP = 993, 990  # that nobody has a name for


class ControlGroup:
    """Limits for processes that are started with ``prefix`` before their command. Only root can make one.

    In the first version of Linux's control groups it is four of them, in the second it is one. Only the first has run.
    """

    def __init__(self, memory_mb: int) -> None:
        self.limit_mb = memory_mb
        quota_us, limit = max(1_000, memory_mb * _PERIOD_US // MB_A_CPU), memory_mb * 1_048_576
        self._is_second = (_GROUPS / "cgroup.controllers").exists()
        name = f"lambda-{uuid4().hex[:12]}"
        kinds = ("cpu", "cpuacct", "memory", "freezer")
        self._cpu, self._times, self._memory, self._freezer = (_parent(kind) / name for kind in kinds)
        for folder in self._folders:
            folder.mkdir()
        if self._is_second:
            (self._cpu / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
            (self._memory / "memory.max").write_text(f"{limit}")
        else:
            (self._cpu / "cpu.cfs_period_us").write_text(f"{_PERIOD_US}")
            (self._cpu / "cpu.cfs_quota_us").write_text(f"{quota_us}")
            (self._memory / "memory.limit_in_bytes").write_text(f"{limit}")

    @property
    def _folders(self) -> set[Path]:
        return {self._cpu, self._times, self._memory, self._freezer}

    @property
    def prefix(self) -> tuple[str, ...]:
        """What puts a process, and all that it starts, into the group, and then is that process."""
        joins = "".join(f"echo $$ >{folder}/cgroup.procs && " for folder in self._folders)
        return ("sh", "-c", f'{joins}exec "$@"', "sh")

    @property
    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(pid) for pid in (self._freezer / "cgroup.procs").read_text().split()]

    @property
    def memory_mb(self) -> float:
        """The most that it ever held."""
        file = "memory.peak" if self._is_second else "memory.max_usage_in_bytes"
        return int((self._memory / file).read_text()) / 1_048_576

    @property
    def cpu_s(self) -> float:
        """What all its processes have used so far."""
        if self._is_second:
            [used] = (line.split()[1] for line in (self._times / "cpu.stat").open() if line.startswith("usage_usec"))
            return int(used) / 1e6
        return int((self._times / "cpuacct.usage").read_text()) / 1e9

    def freeze(self) -> None:
        """Returns when none of its processes runs."""
        self._set_frozen("1" if self._is_second else "FROZEN")
        file, frozen = ("cgroup.events", "frozen 1") if self._is_second else ("freezer.state", "FROZEN")
        until = time.monotonic() + _WITHIN_S
        while frozen not in (self._freezer / file).read_text():
            assert time.monotonic() < until, "the control group does not freeze"
            time.sleep(0.001)

    def thaw(self) -> None:
        self._set_frozen("0" if self._is_second else "THAWED")

    def _set_frozen(self, state: str) -> None:
        (self._freezer / ("cgroup.freeze" if self._is_second else "freezer.state")).write_text(state)

    def close(self) -> None:
        """Kill what is left in it, and remove it."""
        self.thaw()
        until = time.monotonic() + _WITHIN_S
        while pids := self.pids:
            assert time.monotonic() < until, f"{pids} can't be killed"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        for folder in self._folders:
            folder.rmdir()


def _parent(kind: str) -> Path:
    """The group that this process is in, so that its limits hold too; of the second version the topmost.

    There, a group that holds processes can have none below it.
    """
    if (_GROUPS / "cgroup.controllers").exists():
        return _GROUPS
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if kind in kinds.split(",") and (_GROUPS / kind / path.lstrip("/")).is_dir():
            return _GROUPS / kind / path.lstrip("/")
    return _GROUPS / kind


@contextmanager
def control_group(memory_mb: int) -> Iterator[ControlGroup]:
    """One for a test, which is skipped where this machine has none to give."""
    try:
        group = ControlGroup(memory_mb)
    except OSError as error:
        pytest.skip(f"no control group can be made here (it takes root): {error}")
    try:
        yield group
    finally:
        group.close()


def as_lambda(root: Sequence[str], temp: Path) -> tuple[str, ...]:
    """What to put before a command, so that it runs as Lambda would run it.

    ``root``: bubblewrap's words for the file system (``image_root``, ``zip_root``). Only /tmp, which is ``temp``, is
    writable, and there is no /dev/shm; the user is a number, and the machine's name is an address.
    """
    devices = [word for name in _DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    dev = ["--tmpfs", "/dev", *devices, "--symlink", "/proc/self/fd", "/dev/fd", "--remount-ro", "/dev"]
    return contained([*root, *dev], USER, GROUP, "/var/task", {temp: "/tmp"}, "169.254.76.1")  # noqa: S108  # where Lambda has it


def image_root(root: Path) -> list[str]:
    """Of a container image, read-only."""
    return ["--ro-bind", str(root), "/"]


def zip_root(python: Path, task: Path, runtime: Path) -> list[str]:
    """Of a managed runtime: Python in /var/lang, the zip in /var/task, Lambda's client in /var/runtime."""
    base = subprocess.run(
        [python, "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    folders = {base: "/var/lang", str(task): "/var/task", str(runtime): "/var/runtime", "/usr": "/usr"}
    links = [word for name in ("bin", "lib", "lib64") for word in ("--symlink", f"usr/{name}", f"/{name}")]
    binds = [word for folder, place in folders.items() for word in ("--ro-bind", folder, place)]
    bases = [word for place in ("/var", "/tmp", "/proc", "/dev") for word in ("--perms", "0755", "--dir", place)]  # noqa: S108  # as above
    return ["--tmpfs", "/", *bases, *binds, *links, "--remount-ro", "/"]


def contained(
    root: Sequence[str], user: int, group: int, cwd: str, writable: Mapping[Path, str], name: str = "container"
) -> tuple[str, ...]:
    """What to put before a command: a root, with these folders in it, and this user. ``root`` has no /proc."""
    mounts = [*root, "--proc", "/proc"]
    for folder, place in writable.items():
        os.chown(folder, user, group)
        mounts += ["--bind", str(folder), place]
    apart = ["--unshare-pid", "--unshare-uts", "--hostname", name, "--die-with-parent", "--chdir", cwd]
    powers = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    return ("bwrap", *mounts, *apart, "setpriv", f"--reuid={user}", f"--regid={group}", *powers)

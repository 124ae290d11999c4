"""What a process has used so far, from Linux's /proc."""

import os
import time
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads, in steps of 10 ms."""
    return sum(map(int, _fields(pid)[11:13])) / _TICKS_A_SECOND


def cpu_seconds_below(pid: int) -> float:
    """User and system time of the processes it started, those that ended too."""
    ended = sum(map(int, _fields(pid)[13:15])) / _TICKS_A_SECOND
    return ended + sum(cpu_seconds(child) + cpu_seconds_below(child) for child in children(pid))


def resident_mb(pid: int) -> float:
    """Memory that it holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6


def peak_mb(pid: int) -> float:
    """The most memory that it ever held, and the processes that it started and that run now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [own_kb] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return own_kb * 1_024 / 1e6 + sum(map(peak_mb, children(pid)))


def seconds_since_start(pid: int) -> float:
    """Wall time since it was started, in steps of 10 ms."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(_fields(pid)[19]) / _TICKS_A_SECOND


def children(pid: int) -> list[int]:
    """The processes that it started and that run now."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]


def _fields(pid: int) -> list[str]:
    """Of /proc/<pid>/stat, from the state on: the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

"""What a process has used so far, from Linux's /proc."""

import os
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def cpu_seconds(pid: int, *, descendants: bool = False) -> float:
    """User and system time of all its threads; with ``descendants``, of the processes below it too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended_children = sum(map(int, fields[13:15])) if descendants else 0
    own_s = (sum(map(int, fields[11:13])) + ended_children) / _TICKS_A_SECOND
    return own_s + sum(cpu_seconds(child, descendants=True) for child in _children(pid)) if descendants else own_s


def resident_mb(pid: int) -> float:
    """Memory that it holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6


def _children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]

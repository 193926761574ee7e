"""What the processes of the stack use: processor time and memory, by their part in it."""

import contextlib
import os
from dataclasses import dataclass

import psutil

from broker.config import Config
from broker.local.stack import status


@dataclass(frozen=True)
class Usage:
    """What one part uses.

    Parameters
    ----------
    cpu_s : float
        Processor time since it began. [s]
    pss_mb : float
        Proportional set size. [MB]
    """

    cpu_s: float
    pss_mb: float


def usage(config: Config, *, memory: bool = False) -> dict[str, Usage]:
    """Return the usage by part: kafka, hbase, thrift, driver, spark (JVM), python, modules.

    Parameters
    ----------
    config : Config
        Where the local servers' process ids are.
    memory : bool
        Ask for memory too, which takes the system some time; else it reads 0.
    """
    parts: dict[str, list[psutil.Process]] = {
        row.name: [psutil.Process(row.pid)] for row in status(config) if row.pid is not None
    }
    servers = {one.pid for found in parts.values() for one in found}
    me = psutil.Process(os.getpid())
    parts["driver"] = [me]
    for child in me.children(recursive=True):
        if child.pid not in servers:  # one that this process started is its child
            parts.setdefault(_part_of(child), []).append(child)
    return {name: _sum(processes, memory) for name, processes in parts.items()}


def _part_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline())
        if "broker.science.child" in words:
            return "modules"
        return "spark" if "java" in words.split(" ")[0] else "python"
    return "python"


def _sum(processes: list[psutil.Process], memory: bool) -> Usage:
    cpu_s = pss_mb = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu_s += times.user + times.system
            if memory:
                pss_mb += process.memory_full_info().pss / 1e6
    return Usage(cpu_s, pss_mb)


def core_ms(before: dict[str, Usage], after: dict[str, Usage], alerts: int) -> dict[str, float]:
    """Return the processor time between two readings, by part, for each alert. [ms]"""
    nothing = Usage(0.0, 0.0)
    return {
        name: max(0.0, (now.cpu_s - before.get(name, nothing).cpu_s) * 1000.0 / alerts)
        for name, now in after.items()
    }

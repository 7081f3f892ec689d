"""The processes of this machine, and which of them a process has started."""

import subprocess


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the command line of every process, by its id."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return {int(row[0]): (int(row[1]), row[2]) for row in rows if len(row) > 2}


def descendants(pid: int) -> dict[int, str]:
    """Return the command lines of all processes that a process has started, by their ids."""
    running, found, count = processes(), {pid}, 0
    while len(found) > count:
        count = len(found)
        found |= {child for child, (parent, _) in running.items() if parent in found}
    return {one: running[one][1] for one in found - {pid} if one in running}

"""Enters limits, then becomes another command: `python enter.py LIMITS COMMAND...`.

LIMITS is JSON: `{"procs": [files to join], "cpus": [numbers], "data_bytes": n or null}`. It is
started by path in an isolated interpreter; what it used is given back when it executes the command
in its place, so that all memory of the command is charged to the group from its first page on.
"""

from __future__ import annotations

import json
import os
import resource
import sys


def main() -> None:
    """Join, restrict, execute."""
    limits = json.loads(sys.argv[1])
    for path in limits["procs"]:
        with open(path, "w", encoding="ascii") as stream:
            stream.write("0")  # this process, whatever number it has in its name space
    if limits["cpus"]:
        os.sched_setaffinity(0, limits["cpus"])
    if limits["data_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limits["data_bytes"], limits["data_bytes"]))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

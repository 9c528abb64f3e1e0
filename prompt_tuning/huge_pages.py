"""Has the C library ask Linux for huge pages, so that a CPU looks up fewer addresses.

A step reads and writes hundreds of megabytes; with pages of 4 KiB, a quarter of its time goes into
making pages and finding them (see experiments/speed). Where Linux gives huge pages only to programs
that ask (`madvise`, as Ubuntu has it), glibc asks if GLIBC_TUNABLES says so when a program starts.
"""

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
MODE_FILE = "/sys/kernel/mm/transparent_hugepage/enabled"  # such as 'always [madvise] never'
FIRST_GLIBC = (2, 35)  # that knows the tunable


def restart() -> None:
    """Starts this program anew, as the same process, with huge pages; returns if it has them.

    It also returns where nothing would change: on other systems, with an older glibc, if Linux
    gives all programs huge pages or none, and if the variable sets the tunable already.
    """
    given = os.environ.get(VARIABLE, "")
    if TUNABLE in given or not _waits_to_be_asked():
        return
    os.environ[VARIABLE] = ":".join(filter(None, [given, f"{TUNABLE}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _waits_to_be_asked() -> bool:
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        with open(MODE_FILE, encoding="ascii") as file:
            mode = file.read()
    except (AttributeError, ValueError, OSError):  # not Linux, or without glibc
        return False
    return tuple(map(int, version.split(".")[:2])) >= FIRST_GLIBC and "[madvise]" in mode

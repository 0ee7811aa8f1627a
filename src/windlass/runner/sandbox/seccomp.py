"""The seccomp filter of a box: a classic BPF program for x86_64 and aarch64.

Everything that ordinary programs call is allowed; what reaches beyond the box, or is known for holes in the
kernel, is refused. What the kernel learns after this was written counts as missing (ENOSYS), so that no new
call is allowed by accident. Layout: linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable

import msgspec

LAST = 456
"""futex_requeue of Linux 6.7; from here on the numbers are the same everywhere."""

# name: (x86_64, aarch64); None where the architecture has no such call
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # what is mounted, and where the root is
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    # other namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    # the kernel, its devices and its file handles
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    # clocks and names of the host
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # memory across nodes
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
"""These fail with EPERM."""

MISSING: dict[str, tuple[int | None, int | None]] = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "clone3": (435, 435),
    "memfd_secret": (447, 447),
}
"""These fail with ENOSYS: who calls them has another way. io_uring would go past this filter, and the flags
of clone3 are where it cannot see them."""

PARTLY: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    "personality": (135, 92),
}
"""Allowed or not by their arguments."""

_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEW*, but for CLONE_NEWTIME, which clone does not know."""
_AF_UNIX = 1
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: put characters into somebody's terminal."""
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)

# offsets in struct seccomp_data; the low half of an argument comes first on both architectures
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _EQUAL, _ABOVE, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000


class Architecture(msgspec.Struct, frozen=True):
    column: int
    """Of the tables above."""
    audit: int
    """AUDIT_ARCH_*"""


ARCHITECTURES = {"x86_64": Architecture(0, 0xC000003E), "aarch64": Architecture(1, 0xC00000B7)}


def program(machine: str | None = None) -> bytes | None:
    """The filter for `machine` (as uname tells it; None: this one), or None for one that is not known."""
    architecture = ARCHITECTURES.get(machine or platform.machine())
    if architecture is None:
        return None
    return b"".join(struct.pack("=HBBI", *each) for each in _instructions(architecture))


_Instruction = tuple[int, int, int, int]
"""code, instructions to skip if true, if false, operand"""


def _instructions(architecture: Architecture) -> Iterable[_Instruction]:
    yield _load(_ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture.audit)
    yield _answer(_KILL)  # another architecture has other numbers
    yield _load(_NUMBER)
    yield (_ABOVE, 0, 1, LAST)  # x32 too: its numbers begin at 2**30
    yield _answer(_FAIL | errno.ENOSYS)
    for table, error in ((REFUSED, errno.EPERM), (MISSING, errno.ENOSYS)):
        for numbers in table.values():
            if (number := numbers[architecture.column]) is not None:
                yield (_EQUAL, 0, 1, number)
                yield _answer(_FAIL | error)
    for name, numbers in PARTLY.items():
        if (number := numbers[architecture.column]) is not None:
            block = _BY_ARGUMENT[name]
            yield (_EQUAL, 0, len(block), number)
            yield from block
    yield _answer(_ALLOW)


def _load(offset: int) -> _Instruction:
    return (_LOAD, 0, 0, offset)


def _answer(action: int) -> _Instruction:
    return (_RETURN, 0, 0, action)


def _only(argument: int, values: tuple[int, ...], error: int) -> list[_Instruction]:
    """Allows these values of an argument, its upper half left aside as the kernel does for an int."""
    tests = [(_EQUAL, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [_load(_ARGUMENTS + 8 * argument), *tests, _answer(_FAIL | error), _answer(_ALLOW)]


def _never(argument: int, values: tuple[int, ...], error: int) -> list[_Instruction]:
    tests = [(_EQUAL, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [_load(_ARGUMENTS + 8 * argument), *tests, _answer(_ALLOW), _answer(_FAIL | error)]


_BY_ARGUMENT = {
    "socket": _only(0, (_AF_UNIX,), errno.EAFNOSUPPORT),
    "socketpair": _only(0, (_AF_UNIX,), errno.EAFNOSUPPORT),
    "clone": [
        _load(_ARGUMENTS),
        (_BITS, 0, 1, _NEW_NAMESPACES),
        _answer(_FAIL | errno.EPERM),
        _answer(_ALLOW),
    ],
    "prlimit64": _only(0, (0,), errno.EPERM),  # process 1 has the same user, and would take new limits
    "ioctl": _never(1, _TERMINAL_INPUT, errno.EPERM),
    "personality": _only(0, _PERSONALITIES, errno.EPERM),
}

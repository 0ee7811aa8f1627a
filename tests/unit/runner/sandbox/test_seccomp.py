"""The filter, run by a small interpreter of classic BPF."""

from __future__ import annotations

import errno
import struct

import pytest

from windlass.runner.sandbox.seccomp import ARCHITECTURES, LAST, MISSING, PARTLY, REFUSED, program

ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
READ = {"x86_64": 0, "aarch64": 63}
EXECVE = {"x86_64": 59, "aarch64": 221}


def answer(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter says to a call; the instruction set is that of linux/bpf_common.h."""
    text = program(machine)
    assert text is not None
    data = struct.pack("<iIQ6Q", number, audit or ARCHITECTURES[machine].audit, 0,
                       *(*arguments, *(0,) * (6 - len(arguments))))  # fmt: skip
    instructions = list(struct.iter_unpack("=HBBI", text))
    at = accumulator = 0
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            return int(operand)
        else:
            true = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x45: accumulator & operand}
            at += yes if true[code] else no


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
class TestFilter:
    def test_ordinary_calls_pass(self, machine: str) -> None:
        for number in (READ[machine], EXECVE[machine]):
            assert answer(machine, number) == ALLOW

    def test_what_reaches_out_is_refused(self, machine: str) -> None:
        column = ARCHITECTURES[machine].column
        for table, error in ((REFUSED, errno.EPERM), (MISSING, errno.ENOSYS)):
            for name, numbers in table.items():
                number = numbers[column]
                if number is not None:
                    assert answer(machine, number) == FAIL | error, name

    def test_what_is_not_known_yet_is_missing(self, machine: str) -> None:
        assert answer(machine, LAST) == ALLOW
        for number in (LAST + 1, 9999, 2**30, 2**30 + READ[machine], -1):
            assert answer(machine, number) == FAIL | errno.ENOSYS

    def test_another_architecture_is_killed(self, machine: str) -> None:
        assert answer(machine, READ[machine], audit=0x40000003) == KILL

    @pytest.mark.parametrize(
        ("name", "allowed", "refused"),
        [
            ("socket", [(1,), (1, 5)], [(2,), (10,), (16,), (17,), (40,), (0,)]),
            ("socketpair", [(1,)], [(2,)]),
            ("clone", [(17,), (0x3D0F00,)], [(17 | 1 << bit,) for bit in (17, 25, 26, 27, 28, 29, 30)]),
            ("prlimit64", [(0, 3)], [(1, 3), (2,)]),
            ("ioctl", [(0, 0x5401), (0, 0x5413)], [(0, 0x5412), (0, 0x541C), (0, 0x1_0000_5412)]),
            ("personality", [(0xFFFFFFFF,), (0,)], [(0x0040000,)]),
        ],
    )
    def test_arguments_decide(self, machine: str, name: str, allowed: list[tuple[int, ...]],
                              refused: list[tuple[int, ...]]) -> None:  # fmt: skip
        number = PARTLY[name][ARCHITECTURES[machine].column]
        assert number is not None
        assert {answer(machine, number, *arguments) for arguments in allowed} == {ALLOW}
        assert all(answer(machine, number, *arguments) & FAIL == FAIL for arguments in refused)
        assert ALLOW not in {answer(machine, number, *arguments) for arguments in refused}


def test_no_filter_for_what_is_not_known() -> None:
    assert program("vax") is None

"""The power cut itself is tested first: it must lose what was not synced, and nothing else."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storm.disk import SECTOR, Disk, Kind

pytestmark = pytest.mark.storm

CUTS = 40  # of the same log with different seeds: enough to see each fate


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "disk")


def run(disk: Disk, program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program under the library, with `root` and the usual modules at hand."""
    head = f"import os, sys, time\nfrom pathlib import Path\nroot = Path({str(disk.root)!r})\n"
    return subprocess.run(
        [sys.executable, "-S", "-c", head + program],
        env=os.environ | disk.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def fates(disk: Disk, program: str, before: dict[str, bytes] | None = None) -> Iterator[dict[str, bytes]]:
    """What `program` leaves behind after power cuts with many seeds; `before` is on disk already."""
    for path in disk.root.iterdir():
        path.unlink()
    for name, content in (before or {}).items():
        (disk.root / name).write_bytes(content)
    disk.snapshot()
    done = run(disk, program)
    assert done.returncode == 0, done.stderr
    disk.replay()
    for seed in range(CUTS):
        disk.leave(random.Random(seed))
        yield {path.name: path.read_bytes() for path in disk.root.rglob("*") if path.is_file()}


SYNC_FOLDER = "os.fsync(os.open(root, os.O_RDONLY))\n"


def test_a_write_without_fsync_may_be_lost_kept_or_torn(disk: Disk) -> None:
    program = "file = open(root / 'a', 'r+b')\nfile.write(b'new!' * 512)\nfile.flush()\n"
    seen = {files["a"] for files in fates(disk, program, {"a": b"old." * 512})}
    assert b"old." * 512 in seen, "never lost"
    assert b"new!" * 512 in seen, "never kept"
    torn = seen - {b"old." * 512, b"new!" * 512}
    assert torn, "never torn"
    for content in torn:
        sectors = [content[at : at + SECTOR] for at in range(0, len(content), SECTOR)]
        assert set(sectors) <= {b"old." * 128, b"new!" * 128}, "torn inside a sector"


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_a_write_with_fsync_is_kept(disk: Disk, sync: str) -> None:
    program = (
        f"file = open(root / 'a', 'r+b')\nfile.write(b'new!' * 512)\nfile.flush()\nos.{sync}(file.fileno())\n"
    )
    assert {files["a"] for files in fates(disk, program, {"a": b"old." * 512})} == {b"new!" * 512}


def test_every_way_of_writing_is_recorded(disk: Disk) -> None:
    program = (
        """
fd = os.open(root / 'a', os.O_RDWR | os.O_CREAT)
os.write(fd, b'0123456789')
os.pwrite(fd, b'AB', 2)
os.lseek(fd, 8, os.SEEK_SET)
os.writev(fd, [b'xy', b'z'])
os.pwritev(fd, [b'CD', b'E'], 4)
copy = os.dup(fd)
os.write(copy, b'!')
os.ftruncate(fd, 11)
os.fsync(copy)
other = os.open(root / 'b', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(other, b'one')
os.lseek(other, 0, os.SEEK_SET)
os.write(other, b'two')
os.fsync(other)
os.chdir(root)
third = os.open('a', os.O_WRONLY | os.O_TRUNC, dir_fd=os.open('.', os.O_RDONLY))
os.write(third, b'short')
os.fsync(third)
os.fsync(fd)
"""
        + SYNC_FOLDER
    )
    for files in fates(disk, program):
        assert files == {"a": b"short", "b": b"onetwo"}


def test_a_new_file_without_fsync_of_its_folder_may_vanish(disk: Disk) -> None:
    program = "fd = os.open(root / 'a', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'x')\nos.fsync(fd)\n"
    seen = [files.get("a") for files in fates(disk, program)]
    assert set(seen) == {None, b"x"}
    assert {files.get("a") for files in fates(disk, program + SYNC_FOLDER)} == {b"x"}


def test_a_rename_without_fsync_of_the_folder_may_not_have_happened(disk: Disk) -> None:
    program = "os.rename(root / 'new', root / 'name')\n"
    before = {"new": b"new", "name": b"old"}
    seen = [tuple(sorted(files.items())) for files in fates(disk, program, before)]
    assert set(seen) == {(("name", b"new"),), (("name", b"old"), ("new", b"new"))}
    assert all(files == {"name": b"new"} for files in fates(disk, program + SYNC_FOLDER, before))


def test_a_renamed_file_without_fsync_of_its_own_may_be_empty_or_blank(disk: Disk) -> None:
    program = "(root / 'new').write_bytes(b'new')\nos.rename(root / 'new', root / 'name')\n" + SYNC_FOLDER
    assert {files["name"] for files in fates(disk, program, {"name": b"old"})} == {b"", b"\0\0\0", b"new"}


def test_a_file_that_comes_back_is_not_the_one_that_has_its_number(disk: Disk) -> None:
    """A removed file's number is given to the next. Fails when the old name has the new content."""
    program = """
number = os.stat(root / 'a').st_ino
os.unlink(root / 'a')
for each in range(100):
    fd = os.open(root / str(each), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b'new')
    os.fsync(fd)
    if os.fstat(fd).st_ino == number: break
"""
    seen = {files.get("a") for files in fates(disk, program, {"a": b"old"})}
    assert seen == {None, b"old"}


STREAMS = """
import ctypes
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.fwrite.argtypes = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
for call in (libc.fileno, libc.fflush, libc.fclose): call.argtypes = ctypes.c_void_p,
def put(name, mode, data):
    file = libc.fopen(os.fsencode(root / name), mode)
    assert libc.fwrite(data, len(data), 1, file) == 1
    libc.fflush(file)
    os.fsync(libc.fileno(file))
    libc.fclose(file)
put('a', b'w', b'longer')
put('a', b'w', b'12345')
put('a', b'a', b'6789')
put('a', b'r+', b'ABC')
os.truncate(root / 'a', 6)
os.fsync(os.open(root / 'a', os.O_RDWR))
"""


def test_streams_and_paths_are_seen_through(disk: Disk) -> None:
    """What fopen, fwrite and truncate do is recorded."""
    for files in fates(disk, STREAMS + SYNC_FOLDER):
        assert files == {"a": b"ABC456"}


def test_a_childs_changes_are_its_parents(disk: Disk) -> None:
    """The parent syncs what the child has written. Fails when each counts its changes from its own."""
    program = """
for _ in range(9): os.mkdir(root / 'x'), os.rmdir(root / 'x')
pid = os.fork()
if not pid:
    for number in range(20): (root / str(number)).write_bytes(b'x')
    os._exit(0)
os.waitpid(pid, 0)
for path in root.iterdir(): os.fsync(os.open(path, os.O_RDONLY))
"""
    for files in fates(disk, program + SYNC_FOLDER):
        assert files == {str(number): b"x" for number in range(20)}


def test_a_removed_file_may_come_back(disk: Disk) -> None:
    program = "os.unlink(root / 'a')\n"
    assert {files.get("a") for files in fates(disk, program, {"a": b"x"})} == {None, b"x"}
    assert {files.get("a") for files in fates(disk, program + SYNC_FOLDER, {"a": b"x"})} == {None}


def test_a_new_folder_may_vanish_with_everything_in_it(disk: Disk) -> None:
    program = "os.mkdir(root / 'data')\n(root / 'data' / 'a').write_bytes(b'x')\n"
    program += "fd = os.open(root / 'data' / 'a', os.O_RDONLY)\nos.fsync(fd)\n"
    program += "os.fsync(os.open(root / 'data', os.O_RDONLY))\n"
    assert {files.get("a") for files in fates(disk, program)} == {None, b"x"}


def test_a_failed_fsync_keeps_nothing_even_if_the_next_one_succeeds(disk: Disk) -> None:
    """Linux marks the pages clean when fsync fails; a program that only tries again is fooled."""
    disk.control.sync_errno = errno.EIO
    disk.snapshot()
    program = (
        """
fd = os.open(root / 'a', os.O_WRONLY | os.O_CREAT)
os.write(fd, b'x')
try: os.fsync(fd)
except OSError as error: print(error.errno)
sys.stdout.flush()
sys.stdin.readline()
os.fsync(fd)
"""
        + SYNC_FOLDER
    )
    head = f"import os, sys\nfrom pathlib import Path\nroot = Path({str(disk.root)!r})\n"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", head + program],
        env=os.environ | disk.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(errno.EIO)
        disk.control.sync_errno = 0
        process.stdin.write("\n")
    assert process.returncode == 0
    disk.cut(random.Random(1))
    assert (disk.root / "a").read_bytes() == b""


def test_the_power_goes_before_the_chosen_operation(disk: Disk) -> None:
    disk.snapshot()
    disk.control.cut_at = 4  # create, write, fsync, and then
    program = "fd = os.open(root / 'a', os.O_WRONLY | os.O_CREAT)\n"
    program += "for i in range(9):\n  os.write(fd, b'%d' % i)\n  os.fsync(fd)\n"
    done = run(disk, program)
    assert done.returncode == -signal.SIGKILL
    assert [kind for kind, *_ in disk.records()] == [Kind.CREATE, Kind.WRITE, Kind.SYNC]


def test_a_full_disk_takes_what_fits_and_then_nothing(disk: Disk) -> None:
    disk.snapshot()
    disk.control.room = 10
    program = """
fd = os.open(root / 'a', os.O_WRONLY | os.O_CREAT)
print(os.write(fd, b'x' * 8), os.write(fd, b'y' * 8), end=' ')
try: os.write(fd, b'z')
except OSError as error: print(error.errno, end=' ')
print(os.pwrite(fd, b'over', 0), os.fstat(fd).st_size)
"""
    assert run(disk, program).stdout.split() == ["8", "2", str(errno.ENOSPC), "4", "10"]
    assert disk.control.room == 0


def test_a_read_only_directory_refuses_every_change(disk: Disk) -> None:
    (disk.root / "a").write_text("x")
    disk.snapshot()
    disk.control.read_only = 1
    program = """
for change in (
    lambda: os.open(root / 'b', os.O_CREAT | os.O_WRONLY),
    lambda: os.open(root / 'a', os.O_RDWR),
    lambda: os.mkdir(root / 'c'),
    lambda: os.unlink(root / 'a'),
    lambda: os.rename(root / 'a', root / 'b'),
):
    try: change()
    except OSError as error: print(error.errno)
print((root / 'a').read_text())
"""
    assert run(disk, program).stdout.split() == [str(errno.EROFS)] * 5 + ["x"]


def test_the_wall_clock_moves_and_the_monotonic_one_does_not(disk: Disk) -> None:
    disk.snapshot()
    disk.control.clock_shift = -3_600 * 10**9
    wall, monotonic = (
        float(word) for word in run(disk, "print(time.time(), time.monotonic())").stdout.split()
    )
    assert wall == pytest.approx(time.time() - 3_600, abs=600)
    assert monotonic == pytest.approx(time.monotonic(), abs=600)


def test_what_cannot_be_recorded_is_refused(disk: Disk) -> None:
    disk.snapshot()
    program = "import mmap\nfile = open(root / 'a', 'w+b')\nfile.write(b'x' * 4096)\nfile.flush()\n"
    program += "mmap.mmap(file.fileno(), 0)[0] = 65\n"
    assert run(disk, program).returncode == 0
    with pytest.raises(AssertionError, match="a writable mapping"):
        disk.cut(random.Random(1))


SQLITE = """
import apsw
database = apsw.Connection(str(root / 'a.db'))
database.pragma('journal_mode', 'wal')
database.pragma('synchronous', {synchronous!r})
database.execute('create table if not exists kept(number integer primary key)')
database.execute('pragma wal_autocheckpoint = 10')
while True:
    database.execute('insert into kept default values')
    os.write(1, b'.')
"""


def sqlite_loses(disk: Disk, synchronous: str, cuts: int) -> int:
    """How many cuts it takes until a row that SQLite had committed is gone; 0 if none was in `cuts` cuts."""
    rng = random.Random(2)
    acknowledged = 0
    for cut in range(1, cuts + 1):
        disk.snapshot()
        disk.control.cut_at = disk.control.operations + rng.randint(1, 200)
        environment = os.environ | disk.environment()
        program = f"import os\nfrom pathlib import Path\nroot = Path({str(disk.root)!r})\n"
        program += SQLITE.format(synchronous=synchronous)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=False
        )
        if done.returncode != -signal.SIGKILL:
            assert b"apsw." in done.stderr, done.stderr
            return cut  # the database did not even open
        acknowledged += len(done.stdout)
        disk.cut(rng)
        check = "import apsw, sys\n"
        check += "database = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)\n"
        check += "assert database.pragma('integrity_check') == 'ok'\n"
        check += "print(database.execute('select count(*) from kept').get)"
        count = subprocess.run(
            [sys.executable, "-c", check, str(disk.root / "a.db")],
            capture_output=True,
            text=True,
            check=False,
        )
        rows = int(count.stdout) if count.returncode == 0 else 0
        if rows < acknowledged:
            return cut
        acknowledged = rows
    return 0


def test_sqlite_is_seen_through_and_keeps_its_word(disk: Disk) -> None:
    """The library sees every call of the SQLite inside apsw: with FULL it loses nothing, with OFF it does."""
    assert sqlite_loses(disk, "full", cuts=25) == 0
    kinds = {kind for kind, *_ in disk.records()}
    assert {Kind.WRITE, Kind.SYNC} <= kinds
    assert 1 <= sqlite_loses(Disk(disk.root.with_name("other")), "off", cuts=25) <= 25

from __future__ import annotations

from pathlib import Path

from windlass.runner.sandbox.processes import _TICK_NS, Descendants, children


def process(proc: Path, number: int, below: str, ticks: str, kib: int) -> None:
    task = proc / str(number) / "task" / str(number)
    task.mkdir(parents=True)
    (task / "children").write_text(below)
    (proc / str(number) / "stat").write_text(f"{number} (a ) b) S 1 2 3 4 5 6 7 8 9 10 {ticks} 20 0 1\n")
    (proc / str(number) / "status").write_text(f"Name:\ta\nRssAnon:\t{kib} kB\nRssShmem:\t1 kB\n")


def test_what_is_below_the_shim_counts(tmp_path: Path) -> None:
    """utime, stime, cutime, cstime; of the shim only what it waited for."""
    process(tmp_path, 10, "11 ", "100 100 100 100", 1000)  # bubblewrap
    process(tmp_path, 11, "12 13 ", "7 7 2 1", 1000)  # the shim
    process(tmp_path, 12, "", "5 1 0 1", 30)
    process(tmp_path, 13, "14 ", "1 1 1 1", 40)
    seen = Descendants(10, tmp_path)
    usage = seen.usage()  # 14 is gone already
    assert usage.cpu_ns == (3 + 7 + 4) * _TICK_NS
    assert usage.memory_bytes == (31 + 41) * 1024
    assert not usage.out_of_memory
    (tmp_path / "11/task/11/children").write_text("")
    assert seen.usage() == usage  # the most of all looks


def test_children_of_a_process_that_is_gone(tmp_path: Path) -> None:
    assert children(1, tmp_path) == []

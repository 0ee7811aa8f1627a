"""The languages that programs are written in: all that the judge knows of one is its row in this table."""

from __future__ import annotations

import shutil

import msgspec

from windlass.errors import Invalid

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where compilers and interpreters are looked for, inside of a box and outside."""


class Compiling(msgspec.Struct, frozen=True, kw_only=True):
    """How a source becomes what is run, and what that may use."""

    argv: tuple[str, ...]
    """Run in a directory that holds the source alone. Anything but exit 0 is a compile error."""
    time_ms: int = 10_000
    """Processor time of all of the compiler's processes together."""
    wall_ms: int = 30_000
    memory_kib: int = 1024 * 1024
    output_bytes: int = 64 * 1024 * 1024
    """The largest file that it may write."""
    processes: int = 64


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """One language."""

    number: int
    """As on the wire; never given to another language."""
    name: str
    """For people, and a label of the runners that have it."""
    source: str
    """The name of the source file, in an archive and in a box."""
    compiling: Compiling | None
    """None: the source is what is run."""
    program: str
    """The one file that goes from the box of the compiler into the boxes of the runs."""
    argv: tuple[str, ...]
    """How it is run, in a directory that holds `program` alone."""
    processes: int = 64
    """Processes and threads that a run may have at a time."""

    def missing(self) -> list[str]:
        """What has to be installed on this machine before a program in this language can be judged."""
        argvs = [self.argv] if self.compiling is None else [self.compiling.argv, self.argv]
        needed = dict.fromkeys(argv[0] for argv in argvs if not argv[0].startswith("./"))
        return [name for name in needed if shutil.which(name, path=PATH) is None]


def _gcc(compiler: str, *options: str) -> Compiling:
    return Compiling(
        argv=(compiler, "-O2", "-pipe", "-fdiagnostics-color=never", "-fmax-errors=20", *options)
    )


_READ = "import sys; compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec', dont_inherit=True)"

_TABLE = (
    Language(
        number=0,
        name="c11",
        source="main.c",
        compiling=_gcc("gcc", "-std=gnu11", "-o", "main", "main.c", "-lm"),
        program="main",
        argv=("./main",),
    ),
    Language(
        number=1,
        name="c++17",
        source="main.cpp",
        compiling=_gcc("g++", "-std=gnu++17", "-o", "main", "main.cpp"),
        program="main",
        argv=("./main",),
    ),
    Language(
        number=2,
        name="python3",
        source="main.py",
        # Nothing is kept of it: it only tells a program that cannot be read from one that fails.
        compiling=Compiling(argv=("python3", "-I", "-S", "-B", "-c", _READ, "main.py")),
        program="main.py",
        argv=("python3", "-I", "-B", "main.py"),
    ),
)

LANGUAGES = {language.number: language for language in _TABLE}


def language_of(number: int) -> Language:
    """The language with this number. Raises Invalid for any other."""
    try:
        return LANGUAGES[number]
    except KeyError:
        known = ", ".join(f"{language.number} ({language.name})" for language in _TABLE)
        raise Invalid(f"There is no language {number}: there are {known}.", field="language") from None


def language_of_file(name: str) -> Language | None:
    """The language whose source files end as this name does; None where no language's do."""
    suffix = name[name.rfind(".") :] if "." in name else ""
    return next((language for language in _TABLE if suffix and language.source.endswith(suffix)), None)

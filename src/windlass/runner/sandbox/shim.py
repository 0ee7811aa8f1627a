"""Builds the small C programs of the sandbox, once a machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from windlass.errors import SandboxUnavailable

_FLAGS = ("-O2", "-Wall", "-static")
_BUILD_SECONDS = 60
_TEMPORARY = "windlass-shim-"


def build(name: str = "shim") -> Path:
    """The program made from `name`.c beside this file; from the cache if it was made before.

    The cache is `$XDG_CACHE_HOME/windlass`, or `~/.cache/windlass`; one that somebody else could write to is
    not used, nor one that cannot be written to: then it is made in a new temporary directory, which
    `discard` removes. Raises SandboxUnavailable without a C compiler.
    """
    source = Path(__file__).with_name(f"{name}.c").read_bytes()
    key = hashlib.sha256(b"\0".join((source, " ".join(_FLAGS).encode()))).hexdigest()[:16]
    file = f"{name}-{platform.machine()}-{key}"
    cache = _cache()
    if cache is not None and _trusted(cache / file):
        return cache / file
    target = (cache or Path(tempfile.mkdtemp(prefix=_TEMPORARY))) / file
    _compile(source, target)
    return target


def discard(program: Path) -> None:
    """Remove a program that is not in the cache."""
    if program.parent.name.startswith(_TEMPORARY):
        shutil.rmtree(program.parent, ignore_errors=True)


def _cache() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    cache = Path(base) / "windlass"
    try:
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError:
        return None
    return cache if _trusted(cache) and os.access(cache, os.W_OK) else None


def _trusted(path: Path) -> bool:
    """Ours, and nobody else's to write; a link is not."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return (
        found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and not stat.S_ISLNK(found.st_mode)
    )


def _compile(source: bytes, target: Path) -> None:
    """Whole or not at all: another process may make the same at the same time."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SandboxUnavailable("The sandbox needs a C compiler: install gcc and libc6-dev.")
    handle, made = tempfile.mkstemp(dir=target.parent, prefix=".made-")
    os.close(handle)
    try:
        done = subprocess.run(
            [compiler, *_FLAGS, "-x", "c", "-", "-o", made],
            input=source,
            capture_output=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SandboxUnavailable(f"{compiler} cannot build the sandbox's shim: {_last_line(done.stderr)}")
        Path(made).chmod(0o755)
        Path(made).rename(target)
    except subprocess.TimeoutExpired as error:
        raise SandboxUnavailable(f"{compiler} took more than {_BUILD_SECONDS} s for the shim.") from error
    finally:
        Path(made).unlink(missing_ok=True)


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it does not say why"

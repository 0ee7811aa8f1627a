"""windlass products attack against a real server: nothing that is missing reaches its database."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.harness import WINDLASS, ServerProcess, clean_environment


def test_only_what_is_there_reaches_the_database(tmp_path: Path) -> None:
    """Planted defect: the filter's hash has no key (MurmurHash3), and every crafted id passes it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "products.txt").write_text("".join(f"product-{number}\n" for number in range(100)))
    options = ["--json", "--seconds", "2", "--rate", "300", "--plot", str(tmp_path / "attack.svg")]
    with ServerProcess(data) as server:
        done = subprocess.run(
            [WINDLASS, "products", "attack", *options, "--server", server.url],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["denied"] == []
    for kind in ("missing", "crafted"):
        found = report["kinds"][kind]
        assert found["sources"] == {"bloom_filter": found["requests"]}
    # A hundred real ids, each asked once; a hundred ids in a filter for a million let no other pass.
    assert 0 < report["database_roundtrips"] <= 100
    assert report["computed"]["without_key"] > report["database_roundtrips"]
    assert (tmp_path / "attack.svg").stat().st_size > 1000

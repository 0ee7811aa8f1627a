"""What `windlass doctor` ends with, for findings that a test brings."""

from __future__ import annotations

import asyncio

import pytest
import typer

from windlass.cli import doctor
from windlass.runner.sandbox import CHECKS
from windlass.runner.sandbox.doctor import Finding


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("contained", [True, False])
def test_it_ends_with_0_only_where_all_is_kept_and_contained(
    monkeypatch: pytest.MonkeyPatch, contained: bool, kept: bool, as_json: bool
) -> None:
    """Planted defects: only the findings count; only what is enforced counts."""

    async def examined(*, quiet: bool) -> tuple[dict[str, bool], dict[str, str], list[Finding]]:
        assert quiet == as_json
        await asyncio.sleep(0)
        enforces = {check: kept or check != "cpu" for check in CHECKS}
        return enforces, {} if kept else {"cpu": "planted"}, [Finding("disk", "fill", "memory", contained)]

    monkeypatch.setattr(doctor, "_examine", examined)
    if contained and kept:
        doctor.doctor(as_json)
    else:
        with pytest.raises(typer.Exit) as ended:
            doctor.doctor(as_json)
        assert ended.value.exit_code == 1

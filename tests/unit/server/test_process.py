"""What a start does to the process."""

from __future__ import annotations

import gc

from windlass.server.process import _settle_memory


def test_garbage_is_collected_again_once_the_server_is_ready() -> None:
    """Planted defect: the collector, which a start leaves out, stays off: every cycle stays for good."""
    thresholds = gc.get_threshold()
    gc.disable()
    try:
        _settle_memory()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        gc.enable()

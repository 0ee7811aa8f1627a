"""The application for any ASGI server: `uvicorn windlass.asgi:app`. Settings come from WINDLASS_*."""

from __future__ import annotations

from windlass import settings
from windlass.server.app import Windlass

app = Windlass(settings.read())

from __future__ import annotations

from ..asyncio_impl import test_map
from .portable import ported

globals().update(ported(test_map))

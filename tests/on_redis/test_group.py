from __future__ import annotations

from ..asyncio_impl import test_group
from .portable import ported

globals().update(ported(test_group))

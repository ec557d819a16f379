"""What bridgetask sends is what Celery's own client sends, read back raw from real queues."""

import pytest

pytest.register_assert_rewrite("tests.differential.comparison")

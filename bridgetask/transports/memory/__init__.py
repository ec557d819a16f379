"""A worker in this process, for tests."""

"""Redis: stored results, through redis.asyncio."""

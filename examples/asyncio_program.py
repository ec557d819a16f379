"""An asyncio program: calls, errors, timeouts, progress, revoking.

python asyncio_program.py
"""

import asyncio

from tasks import app, broken, count, resize, slow

from bridgetask import Client, ResultTimeout, TaskRevoked


async def main():
    async with Client(app) as client:
        # By name, as Celery's send_task, or by the task itself, as its delay.
        print("by name:", await client.send_task("my_task", args=(1, 2)))
        print("by task:", await client.delay(resize, "cat.png", 64))

        # A thousand at once: one connection to send, one to receive.
        calls = [client.send_task("my_task", args=(number, 1)) for number in range(1000)]
        print("a thousand:", sum(await asyncio.gather(*calls)))

        # The task's own exception, with the worker's traceback as its cause.
        try:
            await client.delay(broken)
        except ValueError as error:
            print("failed:", error, "/", type(error.__cause__).__name__)

        # Every state that the worker reports.
        async for update in client.delay(count, 3).updates():
            print("update:", update.state, update.result if update.state != "STARTED" else "")

        # A timeout leaves the task alone.
        call = client.delay(slow, 0.3)
        try:
            await call.get(timeout=0.05)
        except ResultTimeout:
            print("not yet:", call.state in {"PENDING", "STARTED"})
        print("in the end:", await call)

        # A task that waits in a queue can be revoked.
        call = client.apply_async(slow, (60,), countdown=60)
        await call.sent()  # the broker has confirmed that it has the task
        await call.revoke()
        try:
            await call
        except TaskRevoked:
            print("revoked:", call.state)


if __name__ == "__main__":
    asyncio.run(main())

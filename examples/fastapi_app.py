"""A FastAPI service: one client, connected for as long as the service runs.

uvicorn fastapi_app:api
"""

from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from tasks import app

from bridgetask import Client, NotSent, ResultTimeout, Unconfirmed


@asynccontextmanager
async def lifespan(api: FastAPI):
    # Who stops waiting, as when the server shuts down, revokes the task. A visitor who leaves does
    # not: FastAPI lets the handler run on.
    async with Client(app, send_timeout=5, on_cancel="revoke") as client:
        api.state.celery = client
        yield


api = FastAPI(lifespan=lifespan)


@api.get("/sum")
async def sum_of(a: int, b: int):
    return {"sum": await api.state.celery.send_task("my_task", args=(a, b)).get(timeout=10)}


@api.get("/slow")
async def slow(seconds: float, timeout: float):
    try:
        call = api.state.celery.send_task("tasks.slow", args=(seconds,))
        return {"slept": await call.get(timeout=timeout)}
    except ResultTimeout as error:
        raise HTTPException(504, f"task {error.task_id} is still running") from error
    except NotSent as error:
        raise HTTPException(503, "try again later") from error
    except Unconfirmed as error:
        raise HTTPException(503, f"try again with task_id={error.task_id}") from error


@api.get("/workers")
async def workers():
    replies = await api.state.celery.control.ping(timeout=0.5)
    return {"workers": [name for reply in replies for name in reply]}

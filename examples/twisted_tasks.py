"""Tasks of a Twisted program: the decorator above the task makes its calls Deferreds.

Workers import this module like any other, and run the tasks as they are.
"""

from tasks import app

from bridgetask.twisted_compat import CeleryClient


@CeleryClient
@app.task
def thumbnail(picture, width):
    return f"{picture} at {width}px"

"""Tracing that hooks into Celery follows a call through bridgetask into a worker's process.

Callers are processes of their own: what traces them patches Celery's classes for good.
"""

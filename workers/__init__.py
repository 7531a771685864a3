"""Processes that compute and send: Celery workers, and the same work on files without a node."""

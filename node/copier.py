"""The listener's thread that copies what was received to the shared blob store, if there is one.

What waits is a folder of links on the listener's disk (`BlobStore.hold`), so a kill or an outage of any length loses
nothing, and no sender waits for the copy.
"""

from __future__ import annotations

import threading

from node import log
from node.blobs import BlobStore
from node.errors import BlobStoreUnavailable


def run(store: BlobStore, stop: threading.Event, pause_s: float) -> None:
    """Copy what waits, until told to stop; an outage is logged once when it starts and once when it ends."""
    logger = log.get()
    trouble = False
    while not stop.is_set():
        try:
            copied = store.copy_out(stop.is_set)
            if trouble:
                logger.info("blob store is back")
            trouble = False
            if copied:
                logger.info("blobs copied", count=copied)
        except BlobStoreUnavailable as error:
            if not trouble:
                logger.warning("blobs wait to be copied", code=error.code, error=str(error))
            trouble = True
        except OSError as error:
            logger.error("blobs not copied", code=type(error).__name__)
        stop.wait(pause_s)

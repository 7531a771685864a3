"""The Celery application: transport and process pool, nothing else.

The database is the truth: messages are acknowledged as soon as they arrive, hold one UUID, keep no result, and may be
lost or doubled without harm. What Celery offers for retry and time limits is not used.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
import warnings
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from structlog.contextvars import bound_contextvars, get_contextvars

from node import log, outbox, services
from node.config import Settings
from node.errors import ConfigError
from workers.deliver import LANES, DeliveryWorker
from workers.exchange import ExchangeWorker
from workers.train import TrainingWorker
from workers.watchdog import InHand, watch

SHUTDOWN_S = 25.0
"""How long a worker told to stop may go on with what it has in hand."""
EXIT_UNFINISHED = 74

Handle = Callable[[uuid.UUID], object]


def make_app(settings: Settings) -> Celery:
    """The application with these settings; tasks are added by the worker that does them."""
    app = Celery("tomonode", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever: a supervisor would only start us again
        broker_connection_timeout=5,
        broker_transport_options={
            # Of messages fetched by a worker that died; the relay writes them again long before.
            "visibility_timeout": max(60, round(settings.redispatch_s)),
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
            "retry_on_timeout": True,
        },
    )
    return app


def run_worker(settings: Settings, queue: str, ready: Callable[[], None] = lambda: None) -> int:
    """Work on one queue in this process until SIGTERM; returns the exit code. Call it in the main thread.

    On SIGTERM the task in hand is finished for at most `SHUTDOWN_S`; then the process ends all the same, and the relay
    takes back what it held.

    Args:
        settings: of the node.
        queue: one of `node.outbox.QUEUES`.
        ready: called once when the worker takes messages.

    Raises:
        ConfigError: no such queue.
    """
    if queue not in outbox.QUEUES:
        raise ConfigError(f"no queue is called {queue!r}; use one of {', '.join(outbox.QUEUES)}")
    log.setup(settings.log_level, process=queue)
    app = make_app(settings)
    name = f"{queue}-{os.getpid()}@{socket.gethostname()}"
    # Redis shows it to whoever asks which workers are connected (`tomonode doctor`).
    app.conf.broker_transport_options["client_name"] = name
    in_hand = InHand()
    pool, stop = _add_tasks(app, settings, queue, name, in_hand)
    dog = threading.Thread(
        target=watch, args=(settings, queue, in_hand), name="watchdog", daemon=True
    )

    def taking() -> None:
        if dog.ident is None:  # also told after each connection that was lost
            dog.start()
            ready()

    _connect_signals(settings, queue, taking, stop)
    # Of root with pickled messages; ours are JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        hostname=name,
        queues=[queue],
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        **pool,
    )
    worker.start()
    log.get().info("worker stopped", queue=queue, pid=os.getpid())
    return int(worker.exitcode or 0)


def _add_tasks(
    app: Celery, settings: Settings, queue: str, name: str, in_hand: InHand
) -> tuple[dict[str, Any], Callable[[], None]]:
    """Register what the queue needs; returns the pool's options, and what to call when told to stop."""
    if queue == outbox.DELIVER[1]:
        sender = DeliveryWorker(settings, name)
        _add_task(app, outbox.DELIVER[0], sender.handle, in_hand)
        exchange = ExchangeWorker(settings, name)
        _add_task(app, outbox.COMMIT[0], exchange.commit, in_hand)
        _add_task(app, outbox.PULL[0], exchange.pull, in_hand)
        # Sending waits for other machines most of the time: threads, and enough for many slow peers.
        return {"pool": "threads", "concurrency": LANES}, lambda: _stop(sender, exchange)
    if queue == outbox.INFER[1]:
        from workers.infer import InferenceWorker  # torch, which only this queue needs

        # The device is part of the name, so that a training on it knows when to wait.
        name += f"/{services.device_names(settings)[0]}"
        _add_task(app, outbox.INFER[0], InferenceWorker(settings, name).handle, in_hand)
    if queue == outbox.TRAIN[1]:
        os.nice(settings.training_nice)
        trainer = TrainingWorker(settings, name)
        _add_task(app, outbox.TRAIN[0], trainer.handle, in_hand)
        return {"pool": "solo", "concurrency": 1}, trainer.stop
    # In the main thread: one model in memory a process, and torch's threads do not survive a fork.
    return {"pool": "solo", "concurrency": 1}, lambda: None


def _stop(*workers: DeliveryWorker | ExchangeWorker) -> None:
    for worker in workers:
        worker.stop()


def _add_task(app: Celery, task: str, handle: Handle, in_hand: InHand) -> None:
    # A thread of the pool does not know what the main thread bound to its log lines.
    bound = get_contextvars()

    def run(subject_id: str) -> None:
        """Hand the UUID of a message to the worker."""
        with bound_contextvars(**bound), in_hand.message():
            try:
                subject = uuid.UUID(subject_id)
            except ValueError:
                log.get().error("message without a UUID", task=task)
                return
            handle(subject)

    app.task(name=task, ignore_result=True)(run)


def _connect_signals(
    settings: Settings, queue: str, ready: Callable[[], None], stop: Callable[[], None]
) -> None:
    """Celery keeps weak references by default, so `weak=False` everywhere."""

    def on_logging(**_: object) -> None:
        """Celery leaves logging alone where this signal is connected."""
        log.setup(settings.log_level, process=queue)

    def on_ready(**_: object) -> None:
        """The worker takes messages."""
        log.get().info("worker started", queue=queue, pid=os.getpid())
        ready()

    def on_stop(**_: object) -> None:
        """SIGTERM came: the order matters, for a log line may fail in a signal handler."""
        timer = threading.Timer(SHUTDOWN_S, _end_now)
        timer.daemon = True
        timer.start()
        stop()
        log.get().info("worker stops", queue=queue, pid=os.getpid())

    signals.setup_logging.connect(on_logging, weak=False)
    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_stop, weak=False)


def _end_now() -> None:
    log.get().warning(
        "work in hand not finished: process ends", seconds=SHUTDOWN_S, exit_code=EXIT_UNFINISHED
    )
    os._exit(EXIT_UNFINISHED)

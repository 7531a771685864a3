"""What `tomonode up` runs: one process a service, how to tell that it is ready, and when it is stopped.

The services are started by the name of the program, never imported: the node knows no model code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from node import probe, redis_server
from node.config import Settings, child_environment, visible_gpus
from node.processes import Child

CPU = "cpu"
_GPU_LINE = re.compile(r"^(\s*)(?:GPU|MIG) .*\(UUID: ([^)]+)\)")


@dataclass(frozen=True)
class Service:
    """One process of the node.

    `where` is its address for people; `order` says when it stops (the lowest first) and, reversed, what Redis being
    ready must come before; `stop_s` is how long it may take to end what it has in hand.
    """

    name: str
    command: tuple[str, ...]
    where: str
    ready: Callable[[Child], bool]
    order: int
    stop_s: float
    environment: dict[str, str] = field(repr=False)
    takes_ready_fd: bool = False


def redis_service(settings: Settings) -> Service:
    """The embedded Redis. Raises what `redis_server.prepare` raises."""
    return Service(
        name="redis",
        command=tuple(redis_server.prepare(settings)),
        where=f"Redis on socket {settings.redis_socket}",
        ready=lambda _child: redis_server.answers(settings),
        order=4,
        stop_s=5,
        environment=child_environment(settings),
    )


def node_services(settings: Settings) -> list[Service]:
    """Everything but Redis, for these settings (whose ports are not 0)."""
    environment = child_environment(settings)
    listener = Service(
        name="listener",
        command=own_command("listen"),
        where=_dicom_address(settings),
        ready=lambda _child: probe.accepts(settings.listen_host, settings.listen_port),
        order=0,
        stop_s=30,
        environment=environment,
    )
    web = Service(
        name="web",
        command=own_command("web"),
        where=settings.web_url,
        ready=lambda _child: probe.serves_pages(
            settings.web_host, settings.web_port, tls=settings.web_certificate is not None
        ),
        order=3,
        stop_s=10,
        environment=environment,
    )
    relay = Service(
        name="relay",
        command=own_command("relay"),
        where="closes quiet studies, sends what is due",
        ready=Child.said_ready,
        order=1,
        stop_s=10,
        environment=environment,
        takes_ready_fd=True,
    )
    delivery = _worker("delivery", "delivery", "sends SEG and SR to the peers", environment)
    working = [*_inference(settings, environment), *_training(settings, environment), delivery]
    return [relay, *working, web, listener]


def _dicom_address(settings: Settings) -> str:
    plain = f"DICOM {settings.ae_title} at {settings.listen_host}:{settings.listen_port}"
    return f"{plain}, TLS {settings.listen_tls_port}" if settings.listen_tls_port else plain


def _inference(settings: Settings, environment: dict[str, str]) -> list[Service]:
    gpus = gpus_to_use(settings)
    count = settings.inference_workers or len(gpus) or 1
    # Threads that wait for each other give their core away: nothing lost on a quiet machine, up to half the time
    # gained beside a busy listener.
    environment = {"OMP_WAIT_POLICY": "passive", **environment}
    services = []
    for index in range(count):
        gpu = gpus[index % len(gpus)] if gpus else None
        own = environment if gpu is None else {**environment, "CUDA_VISIBLE_DEVICES": gpu}
        where = f"runs the model on GPU {gpu}" if gpu else "runs the model on the CPU"
        name = "inference" if count == 1 else f"inference-{index}"
        services.append(_worker(name, "inference", where, own))
    return services


def _training(settings: Settings, environment: dict[str, str]) -> list[Service]:
    """A worker a GPU; where fewer are wanted, each has several for trainings in several processes."""
    gpus = gpus_to_use(settings)
    count = max(0, settings.training_workers or len(gpus) or 1)
    environment = {"OMP_WAIT_POLICY": "passive", **environment}
    services = []
    for index in range(count):
        own = gpus[index::count] or gpus[index % len(gpus) :][:1] if gpus else ()
        given = environment | ({"CUDA_VISIBLE_DEVICES": ",".join(own)} if own else {})
        where = f"trains on GPU {', '.join(own)}" if own else "trains on the CPU, at low priority"
        name = "training" if count == 1 else f"training-{index}"
        services.append(_worker(name, "training", where, given))
    return services


def _worker(name: str, queue: str, where: str, environment: dict[str, str]) -> Service:
    return Service(
        name=name,
        command=own_command("worker", "--queue", queue),
        where=where,
        ready=Child.said_ready,
        order=2,
        stop_s=30,
        environment=environment,
        takes_ready_fd=True,
    )


def own_command(*arguments: str) -> tuple[str, ...]:
    """A command of this program, to be run in a process of its own."""
    return (sys.executable, "-m", "workers.cli", *arguments)


def device_names(settings: Settings) -> tuple[str, ...]:
    """The devices of this process by which inference and training know that they share one."""
    if settings.device not in ("auto", "cuda"):
        return (settings.device,)
    return gpus_to_use(settings) or (CPU,)


def worker_suffix(host: str, device: str) -> str:
    """How the database's name of a worker on this device ends."""
    return f"@{host}/{device}"


def gpus_to_use(settings: Settings) -> tuple[str, ...]:
    """GPUs that get a worker each, as CUDA_VISIBLE_DEVICES names them; none where `device` names one device."""
    if settings.device not in ("auto", "cuda"):
        return ()
    visible = visible_gpus()
    if visible is not None:
        return visible
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()  # no driver: no GPU
    return parse_gpus(listing.stdout)


def parse_gpus(listing: str) -> tuple[str, ...]:
    """UUIDs in the output of `nvidia-smi -L`; the slices of a divided GPU stand in its place."""
    found: list[str] = []
    for line in listing.splitlines():
        match = _GPU_LINE.match(line)
        if match is None:
            continue
        indent, uuid = match.groups()
        if indent and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(uuid)
    return tuple(found)

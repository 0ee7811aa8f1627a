"""All settings of the server, read once: options, then WINDLASS_* variables, then a TOML file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from windlass.errors import StartError

DEFAULT_FILE = "windlass.toml"


class Settings(BaseSettings):
    """How one server process runs. Frozen: read at the start, never changed."""

    model_config = SettingsConfigDict(
        env_prefix="WINDLASS_", frozen=True, extra="ignore", populate_by_name=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on. Another than loopback needs API keys.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path("data"), description="The one directory that holds everything.")
    store: str | None = Field(
        None,
        description="URL of the Redis or Valkey that holds the queues. Unset: SQLite, in the data directory.",
    )
    durability: Literal["fsync", "everysec", "memory", "replicated"] = Field(
        "fsync",
        description="What an answer of the store on Redis promises; a Redis that gives less is refused.",
    )
    replicas: int = Field(
        1, ge=1, le=100, description="With `replicated`: replicas that have a message before the answer."
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look.")
    insecure: bool = Field(False, description="Listen on any address without API keys.")
    synchronous: Literal["full", "off"] = Field(
        "full",
        description="off: answers do not wait for the disk, and a power cut loses messages. For tests.",
    )
    body_timeout: float = Field(30, gt=0, description="Seconds in which a request's body must arrive.")
    registration_token: SecretStr | None = Field(
        None,
        description="What runners register with. Unset: one for this start where only this machine can reach"
        " the server, else none; empty: none. Without one, registration is off.",
    )
    runner_lease: float = Field(30, gt=0, le=43_200, description="Seconds that a job is leased to a runner.")
    runner_heartbeat: float = Field(15, gt=0, le=86_400, description="Seconds between a runner's heartbeats.")
    runner_poll: float = Field(3, gt=0, le=86_400, description="Seconds between a runner's polls.")
    runner_jobs: int = Field(8, ge=1, le=10_000, description="Jobs that a runner may hold at once.")
    failed_jobs_kept: float = Field(
        2_592_000, gt=0, description="Seconds that a job which has failed is kept, with what it was."
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that serve the one address. More than one need a store on Redis, PostgreSQL"
        " and `redis`.",
    )
    drain_delay: float | None = Field(
        None,
        ge=0,
        le=3600,
        description="Seconds that a server told to stop goes on serving while its /health answers 503, so"
        " that a balancer in front sends it no more. Unset: 3 with a store on Redis, else 0.",
    )
    drain_timeout: float = Field(10, ge=0, description="Seconds that a stop waits for requests under way.")
    database: str | None = Field(
        None,
        description="URL of the database: products and, in PostgreSQL, the judge. Unset: SQLite, in the data"
        " directory.",
    )
    redis: str | None = Field(
        None,
        validation_alias=AliasChoices("WINDLASS_REDIS", "REDIS_URL"),
        description="URL of the Redis that servers of one database share; `fakeredis://`, for tests, is one"
        " in this process. Also read from `REDIS_URL`.",
    )
    bloom_state_namespace: str | None = Field(
        None,
        validation_alias=AliasChoices("WINDLASS_BLOOM_STATE_NAMESPACE", "BLOOM_STATE_NAMESPACE"),
        description="The filter's state in Redis is under `bloom:state:` and this, not under `bloom:filter`."
        " Also read from `BLOOM_STATE_NAMESPACE`.",
    )
    products_file: Path | None = Field(
        None,
        description="Initial ids of products, one a line. Unset: `products.txt` in the data directory, where"
        " there is one.",
    )
    products_table: str | None = Field(
        None, min_length=1, description="An existing table of products. Unset: Windlass makes its own."
    )
    products_key: str = Field("product_id", min_length=1, description="That table's column of ids.")
    products_name: str = Field("name", description="That table's column of names; empty: it has none.")
    products_price: str = Field("price", description="That table's column of prices; empty: it has none.")
    products_trigger: bool = Field(
        False, description="The trigger that tells of writes may be installed on that table."
    )
    products_read_only: bool = Field(False, description="Products can be looked at, and not be changed.")
    products_writes: Literal["here", "elsewhere"] = Field(
        "here", description="elsewhere: others than Windlass write the products' table, too."
    )
    max_lag_seconds: float = Field(
        1,
        gt=0,
        le=3600,
        description="Seconds that writes elsewhere may be unknown here until the database is asked for all.",
    )
    bloom_expected_items: int = Field(
        1_000_000, ge=1, le=1_000_000_000, description="Products that the filter is made for."
    )
    bloom_false_positive_rate: float = Field(
        0.01, gt=0, le=0.5, description="The part of absent ids that the filter may let pass."
    )
    cache_bytes: int = Field(67_108_864, ge=0, description="Memory for products that were looked up.")
    negative_cache_bytes: int = Field(
        8_388_608, ge=0, description="Memory for absent ids that the filter let pass."
    )
    negative_cache_seconds: float = Field(60, gt=0, le=86_400, description="Seconds that those are kept.")

    @property
    def drain_seconds(self) -> float:
        """How long the first step of a stop lasts."""
        if self.drain_delay is not None:
            return self.drain_delay
        return 0 if self.store is None else 3  # alone, nobody takes over

    @property
    def bloom_state_key(self) -> str:
        """The filter's key in Redis."""
        namespace = self.bloom_state_namespace
        return f"bloom:state:{namespace}" if namespace else "bloom:filter"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic calls it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_file())


def _file() -> dict[str, Any]:
    """The TOML file named by WINDLASS_CONFIG, or windlass.toml here if there is one. Raises StartError."""
    named = os.environ.get("WINDLASS_CONFIG")
    path = Path(named or DEFAULT_FILE)
    if not named and not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise StartError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"The settings file {path} is not TOML: {error}.") from error
    unknown = sorted(set(table) - set(Settings.model_fields))
    if unknown:
        known = ", ".join(Settings.model_fields)
        raise StartError(
            f"The settings file {path} names {unknown[0]!r}, which is no setting. Known: {known}."
        )
    return table


def read(**options: Any) -> Settings:
    """Read the settings; `options` that are None were not given. Raises StartError naming the culprit."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise StartError(f"The setting {name} is wrong: {first['msg']} (got {first['input']!r}).") from error

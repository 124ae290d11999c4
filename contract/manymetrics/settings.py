"""All settings, read once at the entry point and passed on as one frozen object. docs/settings.md lists each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from manymetrics.tables import NAMESPACE

PREFIX = "MANYMETRICS_"
DEDUP_WINDOW_DAYS = 7
ENGINES = ("spark", "arrow")
_DATABASE = re.compile(r"[a-z][a-z0-9_]{0,62}")  # Glue folds case; more would need quotes in SQL


class SettingsError(ValueError):
    """A setting is invalid; the message names it and the values it accepts."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the setting ``MANYMETRICS_<NAME>``."""

    data_dir: Path = Path(".manymetrics")
    """Where one machine keeps its stream, tables, catalog and keys."""
    host: str = "127.0.0.1"
    """The address that `serve` listens on."""
    port: int = 8000
    """The port that `serve` listens on."""
    write_keys: str = ""
    """`key` or `key:project`, comma-separated; used instead of the keys file. For trying: they can't be revoked."""
    commit_interval_s: float = 2.0
    """The longest wait from event to table under load. An idle server commits at once."""
    dedup_window_days: int = DEDUP_WINDOW_DAYS
    """UTC days after an event within which the same message_id is a duplicate."""
    dedup_max_ids: int = 30_000_000
    """How many message_ids the processor on AWS holds, 16 bytes each, mostly in its temp folder.

    With more, it forgets the oldest days."""
    trusted_proxies: int = 0
    """Number of trusted reverse proxies: that many entries of X-Forwarded-For, from the right, are trusted."""
    body_timeout_s: float = 30.0
    """How long a request's body may take to arrive."""
    stream: str = ""
    """The Kinesis stream that the API on AWS puts events into."""
    warehouse: str = ""
    """Where the tables on AWS are, `s3://bucket/prefix`: the processor keeps them there, and `query` asks them."""
    database: str = NAMESPACE
    """The Glue database of the tables on AWS, so that one region of an account has room for several."""
    athena_workgroup: str = ""
    """The Athena workgroup that insights are asked in on AWS, with `--engine athena`."""
    definitions: str = ""
    """The folder of definitions in YAML, or `s3://bucket/prefix`: events, cohorts, saved insights."""
    engine: str = "spark"
    """The engine of the processor on AWS: `spark`, or `arrow`, which takes no JVM and half the memory."""
    spark_jars: Path = Path("/opt/spark-jars")
    """Where Iceberg's two jars for Spark are, and `classes.jsa`, the class archive, if there is one."""
    archive: str = ""
    """Where the processor on AWS keeps the records it had, for `replay`: `s3://bucket/prefix`. Empty: nowhere."""
    ip: str = "keep"
    """How the processor stores addresses, after looking up their location: `keep`, `drop`, or `truncate`.

    The latter keeps /24 of IPv4 and /48 of IPv6."""
    user_agent: str = "keep"
    """How the processor stores user agents and client hints, after parsing them: `keep` or `drop`."""
    geoip: str = ""
    """MMDB files for the location of addresses, comma-separated. Empty: those in `geoip` in the data directory."""
    metrics_token: str = ""
    """Bearer token for /metrics. Without it, only direct requests from this machine are answered."""
    console_token: str = ""
    """Lets whoever has it ask questions over HTTP from anywhere; without it, only this machine may."""
    keys_parameter: str = ""
    """The SSM parameter that holds the write keys of the API on AWS, as JSON; a SecureString is decrypted."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Read from environment variables. Raises SettingsError."""
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
        if unknown:
            raise SettingsError(f"unknown setting {unknown[0]}; valid settings: {', '.join(sorted(known))}")
        return cls(
            **{
                name: _parse(variable, name, environ[variable])
                for variable, name in known.items()
                if variable in environ and (environ[variable] or not isinstance(getattr(cls(), name), Path))
            }
        )


def _parse(variable: str, name: str, text: str) -> Any:  # noqa: ANN401  # what the field takes
    kind = type(getattr(Settings(), name))
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{variable} takes {_KINDS[kind]}, not {text!r}") from None
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SettingsError(f"{variable} takes {' or '.join(_CHOICES[name])}, not {text!r}")
    if name == "database" and not _DATABASE.fullmatch(value):
        raise SettingsError(
            f"{variable} takes 1 to 63 lower-case letters, digits and underscores, beginning with a letter, not "
            f"{text!r}: the Glue database of the tables, which is Terraform's output glue_database_name"
        )
    if kind in {int, float} and not 0 <= value <= _LARGEST[name]:
        raise SettingsError(f"{variable} takes {_KINDS[kind]} from 0 to {_LARGEST[name]}, not {text}")
    return value


_CHOICES = {"engine": ENGINES, "ip": ("keep", "truncate", "drop"), "user_agent": ("keep", "drop")}
_KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "text", type(Path()): "a path"}
_LARGEST = {
    "port": 65_535,
    "commit_interval_s": 300,
    "body_timeout_s": 300,
    "dedup_window_days": 400,
    "dedup_max_ids": 1_000_000_000,
    "trusted_proxies": 10,
}

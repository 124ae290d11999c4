"""Settings: each is read, and what can't be read is said with its cure."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from manymetrics.settings import Settings, SettingsError

GIVEN: dict[str, tuple[str, object]] = {
    "data_dir": ("/srv/metrics", Path("/srv/metrics")),
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104  # read, not listened on
    "port": ("9000", 9000),
    "write_keys": ("wk_1:shop,wk_2", "wk_1:shop,wk_2"),
    "commit_interval_s": ("0.5", 0.5),
    "dedup_window_days": ("30", 30),
    "dedup_max_ids": ("1000", 1000),
    "trusted_proxies": ("2", 2),
    "body_timeout_s": ("5", 5.0),
    "stream": ("events", "events"),
    "warehouse": ("s3://lake/tables", "s3://lake/tables"),
    "database": ("shop_eu", "shop_eu"),
    "athena_workgroup": ("shop", "shop"),
    "definitions": ("s3://bucket/definitions", "s3://bucket/definitions"),
    "engine": ("arrow", "arrow"),
    "spark_jars": ("/srv/jars", Path("/srv/jars")),
    "archive": ("s3://lake/archive", "s3://lake/archive"),
    "ip": ("truncate", "truncate"),
    "user_agent": ("drop", "drop"),
    "geoip": ("/srv/city.mmdb,/srv/asn.mmdb", "/srv/city.mmdb,/srv/asn.mmdb"),
    "metrics_token": ("t-1", "t-1"),
    "keys_parameter": ("/manymetrics/keys", "/manymetrics/keys"),
    "console_token": ("open-sesame", "open-sesame"),
}


def variable(name: str) -> str:
    return f"MANYMETRICS_{name.upper()}"


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_each_setting_is_read_from_its_variable(name: str) -> None:
    text, value = GIVEN[name]

    settings = Settings.read({variable(name): text, "PATH": "/bin"})

    assert {field.name: getattr(settings, field.name) for field in fields(Settings)} == {
        **{field.name: getattr(Settings(), field.name) for field in fields(Settings)},
        name: value,
    }


def test_without_variables_the_defaults_hold() -> None:
    assert Settings.read({"HOME": "/"}) == Settings()


def test_there_are_at_most_25_settings() -> None:
    assert len(fields(Settings)) <= 25


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("port", "http", "MANYMETRICS_PORT takes a whole number, not 'http'"),
        ("port", "", "MANYMETRICS_PORT takes a whole number, not ''"),
        ("port", "65536", "MANYMETRICS_PORT takes a whole number from 0 to 65535, not 65536"),
        ("port", "-1", "MANYMETRICS_PORT takes a whole number from 0 to 65535, not -1"),
        ("commit_interval_s", "soon", "MANYMETRICS_COMMIT_INTERVAL_S takes a number, not 'soon'"),
        ("commit_interval_s", "nan", "MANYMETRICS_COMMIT_INTERVAL_S takes a number from 0 to 300, not nan"),
        ("commit_interval_s", "inf", "MANYMETRICS_COMMIT_INTERVAL_S takes a number from 0 to 300, not inf"),
        ("dedup_window_days", "7.5", "MANYMETRICS_DEDUP_WINDOW_DAYS takes a whole number, not '7.5'"),
        ("dedup_window_days", "401", "MANYMETRICS_DEDUP_WINDOW_DAYS takes a whole number from 0 to 400, not 401"),
        ("trusted_proxies", "11", "MANYMETRICS_TRUSTED_PROXIES takes a whole number from 0 to 10, not 11"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_it_takes(name: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.read({variable(name): text})

    assert str(error.value) == said


@pytest.mark.parametrize("text", ["", "Shop", "shop-eu", "1shop", "_shop", "shop.events", "shop\n", "é", "a" * 64])
def test_a_database_that_glue_or_sql_would_not_take_as_it_is_is_refused_with_where_the_right_one_stands(
    text: str,
) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.read({"MANYMETRICS_DATABASE": text})

    assert str(error.value) == (
        "MANYMETRICS_DATABASE takes 1 to 63 lower-case letters, digits and underscores, beginning with a letter, not "
        f"{text!r}: the Glue database of the tables, which is Terraform's output glue_database_name"
    )


@pytest.mark.parametrize("text", ["a", "shop2", "shop_eu_", "a" * 63])
def test_a_database_is_any_name_that_needs_no_quotes(text: str) -> None:
    assert Settings.read({"MANYMETRICS_DATABASE": text}).database == text


def test_a_misspelt_setting_is_refused_and_the_right_ones_are_named() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting MANYMETRICS_PROT; valid settings: .*MANYMETRICS_PORT"):
        Settings.read({"MANYMETRICS_PROT": "9000"})


def test_settings_say_nothing_of_a_secret_in_an_error() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.read({"MANYMETRICS_WRITE_KEYS": "wk_secret", "MANYMETRICS_PORT": "x"})

    assert "wk_secret" not in str(error.value)

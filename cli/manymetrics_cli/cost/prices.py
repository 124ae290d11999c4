"""List prices, each with its source. A missing or an unknown name in the file is an error."""

from __future__ import annotations

from pathlib import Path

import msgspec

PRICES_FILE = Path(__file__).with_name("prices.json")


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``usd`` per ``per`` units. ``source`` is None for a price from memory, without a source."""

    usd: float
    per: float
    unit: str
    source: str | None

    def of(self, units: float) -> float:
        """Return the US dollars for a number of units."""
        return units / self.per * self.usd


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prices that the bill needs, without free tiers."""

    as_of: str
    region: str
    http_api_first_300m: Price
    http_api_above: Price
    lambda_request: Price
    lambda_arm: Price
    lambda_x86: Price
    data_out: Price
    kinesis_shard: Price
    kinesis_put_unit: Price
    kinesis_long_retention: Price
    kinesis_on_demand_stream: Price
    kinesis_on_demand_in: Price
    kinesis_on_demand_out: Price
    s3_stored: Price
    s3_write: Price
    s3_read: Price
    glue_request: Price
    logs_in: Price
    metric: Price
    alarm: Price
    dashboard: Price
    kms_key: Price
    kms_request: Price
    ecr_stored: Price
    athena_scanned: Price
    cloudfront_request: Price
    cloudfront_out: Price

    def by_name(self) -> dict[str, Price]:
        """Map each price to its name."""
        every = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: price for name, price in every.items() if isinstance(price, Price)}


def read_prices(path: Path = PRICES_FILE) -> Prices:
    """Read the file's prices. Raises msgspec.ValidationError if one is missing or unknown."""
    return msgspec.json.decode(path.read_bytes(), type=Prices)

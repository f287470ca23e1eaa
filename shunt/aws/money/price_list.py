"""On-demand prices from the AWS Price List, which is one service for all regions."""

import json
from collections.abc import Iterator
from typing import Any, cast

from shunt.aws.api import AwsApi

PRICE_LIST_REGION = "us-east-1"
"""The Price List answers in three regions only; each has the prices of all."""
_FILTERS = {
    "instanceFamily": "GPU instance",
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
_HOUR = "Hrs"


def on_demand_prices(pricing: AwsApi, region: str) -> dict[str, float]:
    """USD per hour by instance type: every GPU type of the region. Raises `AwsError`."""
    fields = {**_FILTERS, "regionCode": region}
    filters = [{"Type": "TERM_MATCH", "Field": f, "Value": v} for f, v in fields.items()]
    params = {"ServiceCode": "AmazonEC2", "Filters": filters, "MaxResults": 100}
    found: dict[str, float] = {}
    for text in pricing.pages("get_products", params, "PriceList"):
        product = cast("dict[str, Any]", json.loads(text))
        name: str = product["product"]["attributes"]["instanceType"]
        for usd in _hourly(product["terms"]):
            found[name] = usd
    return found


def _hourly(terms: dict[str, Any]) -> Iterator[float]:
    """Prices of one hour; a product without one (a reservation's hour) has zero, and is left."""
    for term in terms.get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension["unit"] == _HOUR and usd > 0:
                yield usd

"""The Price List of the double: on-demand prices by region and instance type."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from shunt.testing.ec2.faults import ApiFault, Fault
from shunt.testing.ec2.market import Market

_PAGE = 2
"""Products a page: few, so that every test turns pages."""


@dataclass(slots=True)
class PriceListDouble:
    """Answers GetProducts of a boto3 client given to `attach`."""

    usd_per_hour: dict[tuple[str, str], str]
    """By region and instance type."""
    faults: list[Fault] = field(default_factory=list[Fault])
    _asked: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, market: Market, at: datetime) -> Self:
        """Those of a market, at an instant."""
        pools = [pool for pool in market.prices if pool.market == "on-demand"]
        return cls({(p.zone[:-1], p.instance_type): str(market.price_at(p, at)) for p in pools})

    def attach(self, client: Any) -> None:
        client.meta.events.register("before-parameter-build", self._remember)
        client.meta.events.register("before-call", self._answer)

    def _remember(self, params: dict[str, Any], **_: object) -> None:
        self._asked = dict(params)

    def _answer(self, model: Any, **_: object) -> Any:
        try:
            for fault in self.faults:
                fault(0, model.name, "before")
        except ApiFault as fault:
            return _Http(400), {"Error": {"Code": fault.code, "Message": fault.message}}
        return _Http(200), self.products(self._asked)

    def products(self, params: dict[str, Any]) -> dict[str, Any]:
        """The answer to GetProducts."""
        wanted = {f["Field"]: f["Value"] for f in params["Filters"]}
        products = [
            json.dumps(_product(instance_type, usd))
            for (region, instance_type), usd in sorted(self.usd_per_hour.items())
            if region == wanted["regionCode"]
        ]
        start = int(params.get("NextToken") or 0)
        more = {"NextToken": str(start + _PAGE)} if start + _PAGE < len(products) else {}
        return {"PriceList": products[start : start + _PAGE], **more}


def _product(instance_type: str, usd: str) -> dict[str, Any]:
    """As the Price List writes one, cut to what anybody reads."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": usd}}
    terms = {"OnDemand": {"SKU.TERM": {"priceDimensions": {"SKU.TERM.RATE": dimension}}}}
    return {"product": {"attributes": {"instanceType": instance_type}}, "terms": terms}


@dataclass(frozen=True, slots=True)
class _Http:
    status_code: int

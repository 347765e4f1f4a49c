"""Transaction bundles through `route`, without HTTP: `python -m tests.bench.bundles [bundles] [entries]`.

Prints resources per second (wall) and server CPU per resource for transactions of plain creates, of updates under the client's ids and of
conditional creates, on an embedded database, one process, 8 at once.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from fhir_server.store import embedded
from fhir_server.store.mongo.store import open_store
from tests.server.rest.calls import exchange_on

AT_ONCE = 8
Entry = Callable[[int], dict[str, Any]]


def observation(number: int) -> dict[str, Any]:
    """A typical laboratory result."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin [Mass/volume] in Blood"}], "text": "Hemoglobin"},
        "subject": {"reference": f"Patient/p{number % 1000}"},
        "encounter": {"reference": f"Encounter/e{number % 3000}"},
        "effectiveDateTime": f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}T08:30:00+01:00",
        "issued": "2024-03-01T10:00:00Z",
        "valueQuantity": {
            "value": Decimal(f"{13 + number % 4}.{number % 10}"),
            "unit": "g/dL",
            "system": "http://unitsofmeasure.org",
            "code": "g/dL",
        },
        "interpretation": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "N"}]}],
        "referenceRange": [{"low": {"value": 12, "unit": "g/dL"}, "high": {"value": 16, "unit": "g/dL"}}],
    }


def created(number: int) -> dict[str, Any]:
    """A plain create."""
    return {"request": {"method": "POST", "url": "Observation"}, "resource": observation(number)}


def updated(number: int) -> dict[str, Any]:
    """An update under a new id of the client's."""
    return {"request": {"method": "PUT", "url": f"Observation/o{number}"}, "resource": observation(number) | {"id": f"o{number}"}}


def conditional(number: int) -> dict[str, Any]:
    """A create if there is none."""
    res = observation(number) | {"identifier": [{"system": "http://lab", "value": str(number)}]}
    return {"request": {"method": "POST", "url": "Observation", "ifNoneExist": f"identifier=http://lab|{number}"}, "resource": res}


async def measure(uri: str, name: str, entry: Entry, bundles: int, entries: int) -> None:
    """One figure."""
    store = await open_store(uri, name=name)
    rest = exchange_on(store)
    numbers = iter(range(bundles))

    async def client() -> None:
        for number in numbers:
            rows = [entry(number * entries + at) for at in range(entries)]
            reply = await rest("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": rows})
            assert reply.status == 200, str(reply)[:400]

    await rest("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry(-1)]})
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    total = bundles * entries
    print(f"{name:12} {total / wall:8.0f} resources/s   {cpu / total * 1e6:6.0f} us CPU per resource")
    await store.close()


async def main(bundles: int, entries: int) -> None:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        running = embedded.start(Path(folder), cache_gb=0.5)
        try:
            for name, entry in (("creates", created), ("updates", updated), ("conditional", conditional)):
                await measure(running.uri, name, entry, bundles, entries)
        finally:
            running.stop()


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    asyncio.run(main(given[0] if given else 100, given[1] if len(given) > 1 else 100))

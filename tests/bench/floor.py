"""The floor: a bare ASGI handler that does one driver call per request on the same database, and nothing else.

`GET /ID` finds the stored document `{_id, vid, at, res}` by `_id` and writes `res` as JSON; `POST /` reads the JSON body and inserts it as such a
document with `w: majority, j: true`. No validation, no index but `_id`, no security, no logs. `python -m tests.bench.floor FD URI`.
`GET /newest/PATIENT/KEY` is the floor of a search: one `find` on the exchange's own collection by its index (patient, key, date), newest 20, as a JSON list.
"""

import sys
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import uvicorn
from bson import Decimal128
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern

decode = msgspec.json.Decoder(float_hook=Decimal).decode
encode = msgspec.json.Encoder(enc_hook=lambda value: value.to_decimal(), decimal_format="number").encode


def bson_ready(value: object) -> object:
    """Decimals as Decimal128, as the driver needs them."""
    if isinstance(value, dict):
        return {key: bson_ready(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [bson_ready(inner) for inner in value]
    return Decimal128(value) if isinstance(value, Decimal) else value


def application(uri: str):
    """The ASGI callable."""
    state = {}

    async def app(scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        if not state:
            database = AsyncMongoClient(uri)["floor"]
            state["c"] = database.get_collection("Observation", write_concern=WriteConcern("majority", j=True))
            state["searched"] = database.client["fhir"]["Observation"]
        if scope["path"].startswith("/newest/"):
            _, _, patient, key = scope["path"].split("/", 3)
            wanted = {"p": f"Patient/{patient}", "k": key}
            rows = await state["searched"].find(wanted, {"res": 1}).sort([("d", -1)]).limit(20).to_list()
            status, body = 200, encode([row["res"] for row in rows])
        elif scope["method"] == "GET":
            found = await state["c"].find_one({"_id": scope["path"][1:]})
            status, body = (200, encode(found["res"])) if found else (404, b"")
        else:
            body = b""
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message.get("more_body", False)
            await state["c"].insert_one({"_id": uuid.uuid4().hex, "vid": 1, "at": datetime.now(UTC), "res": bson_ready(decode(body))})
            status, body = 201, b""
        headers = [(b"content-type", b"application/fhir+json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def main(argv: list[str]) -> None:
    """Serve on the inherited listening socket `FD`."""
    config = uvicorn.Config(
        application(argv[1]), fd=int(argv[0]), loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(sys.argv[1:])

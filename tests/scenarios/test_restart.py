"""What lives on when the server is stopped and started again."""

from pathlib import Path

from tests.scenarios.running import free_port, serve

JSON = {"Content-Type": "application/fhir+json"}


def test_cursors_resources_and_messages_survive_a_restart(tmp_path: Path) -> None:
    port = free_port()
    with serve(tmp_path / "data", port=port) as server, server.client() as http:
        made = [http.post("/Patient", json={"resourceType": "Patient"}, headers=JSON).json()["id"] for _ in range(4)]
        page = http.get("/Patient?_count=2").json()
        seen = [entry["resource"]["id"] for entry in page["entry"]]
        after = next(link["url"] for link in page["link"] if link["relation"] == "next")
    assert (tmp_path / "data" / "secret").stat().st_mode & 0o077 == 0
    with serve(tmp_path / "data", port=port) as server, server.client() as http:
        rest = http.get(after)
        assert rest.status_code == 200, rest.text
        seen += [entry["resource"]["id"] for entry in rest.json()["entry"]]
        assert http.get(after[:-3] + "abc").status_code == 400
    assert sorted(seen) == sorted(made)

"""A running `fhir-exchange serve --auth smart` with registered people and apps, for browsers and real clients."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import httpx

from tests.scenarios.running import ROOT, Server, serve

PASSWORD = "correct horse battery"
SECRET = "real-client-secret-real-client-secret-0123"
SCOPES = "openid fhirUser launch launch/patient launch/encounter offline_access online_access patient/*.cruds user/*.cruds"


def command(server: Server, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """Run `fhir-exchange ...` beside the running server; what it prints."""
    whole = [sys.executable, "-m", "fhir_server.cli", *arguments, "--data-dir", str(server.log.with_suffix(""))]
    done = subprocess.run(whole, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@dataclass
class App:
    """The app's redirect address: keeps what arrives there."""

    port: int
    arrived: "Queue[str]" = field(default_factory=Queue)

    @property
    def back(self) -> str:
        return f"http://127.0.0.1:{self.port}/back"


@contextmanager
def app_host() -> Iterator[App]:
    """An app that waits to be sent back to."""
    arrived: Queue[str] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Note the address, show a page."""
            if self.path.startswith("/back"):
                arrived.put(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>app</title>back at the app")

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    yield App(host.server_address[1], arrived)
    host.shutdown()


@contextmanager
def smart_server(folder: Path, app: App) -> Iterator[Server]:
    """The server with two workers, everything registered by the command line, and patients stored by a backend client."""
    with serve(folder / "data", "--auth", "smart", "--workers", "2") as server:
        command(server, "user", "add", "drdoe", "--fhir-user", "Practitioner/p1", "--display", "Dr Doe", "--password-file", "-", stdin=PASSWORD)
        command(server, "client", "add", "app", "--name", "Growth Chart", "--redirect-uri", app.back, "--scope", SCOPES)
        confidential = ("client", "add", "portal", "--kind", "symmetric", "--redirect-uri", app.back, "--scope", SCOPES, "--secret-file", "-")
        command(server, *confidential, stdin=SECRET)
        made = command(server, "client", "add", "loader", "--kind", "symmetric", "--scope", "system/*.cruds exchange/launch")
        load(server, json.loads(made)["client_secret"])
        yield server


def load(server: Server, secret: str) -> None:
    """Two patients with an encounter and an observation each."""
    root = server.base.removesuffix("/fhir")
    form = {"grant_type": "client_credentials", "client_id": "loader", "client_secret": secret, "scope": "system/*.cruds"}
    token = httpx.post(root + "/auth/token", data=form, timeout=30).json()["access_token"]
    with server.client() as http:
        http.headers["Authorization"] = f"Bearer {token}"
        for number, family in ((1, "Adler"), (2, "Berg")):
            subject = {"reference": f"Patient/pat{number}"}
            rows = [
                {"resourceType": "Patient", "id": f"pat{number}", "name": [{"family": family, "given": ["Kim"]}], "birthDate": "1970-02-03"},
                {"resourceType": "Encounter", "id": f"enc{number}", "status": "finished", "class": {"code": "AMB"}, "subject": subject},
                {"resourceType": "Observation", "id": f"obs{number}", "status": "final", "code": {"text": "Height"}, "subject": subject},
                {"resourceType": "Practitioner", "id": "p1", "name": [{"family": "Doe"}]},
            ]
            for row in rows:
                reply = http.put(f"/{row['resourceType']}/{row['id']}", json=row)
                assert reply.status_code in (200, 201), reply.text

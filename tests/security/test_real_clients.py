"""Clients that others wrote complete launch, read, search and refresh against the running server: Python `fhirclient`, npm `fhirclient`, `fhir-kit-client`.

They are fetched by name when the tests run (into `.cache`), and the tests skip with the reason where that is not possible.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.packages import alone
from tests.scenarios.running import Server, free_port
from tests.security.app import Browser
from tests.security.running import SCOPES, SECRET, App, app_host, command, smart_server

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent / "clients"
CACHE = Path(__file__).resolve().parents[2] / ".cache"
EXPECTED = {"patient": "pat2", "family": "Berg", "observations": ["obs2"], "refreshed": True}


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with app_host() as host:
        yield host


@pytest.fixture(scope="module")
def server(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with smart_server(tmp_path_factory.mktemp("smart"), app) as running:
        yield running


def fetched(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        pytest.skip(f"{what} could not be fetched: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def python_packages() -> Path:
    target = CACHE / "python-fhirclient"
    with alone("python-fhirclient"):
        if not target.exists():
            base = Path(sys.base_prefix) / "bin" / "python3"  # the environment itself may have no pip
            whole = [str(base), "-m", "pip", "install", "--quiet", "--target", str(target), "fhirclient"]
            fetched(subprocess.run(whole, capture_output=True, text=True, timeout=250), "fhirclient")
    return target


@pytest.fixture(scope="module")
def npm_packages() -> Path:
    npm, target = shutil.which("npm"), CACHE / "npm-clients"
    if npm is None:
        pytest.skip("npm is not installed")
    with alone("npm-clients"):
        if not (target / "node_modules" / "fhirclient").exists():
            target.mkdir(parents=True, exist_ok=True)
            whole = [npm, "install", "--prefix", str(target), "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--omit=peer"]
            fetched(subprocess.run([*whole, "fhirclient", "fhir-kit-client"], capture_output=True, text=True, timeout=250), "npm packages")
    return target


async def person(server: Server, address: str) -> Browser:
    """A clinician who goes there, signs in, chooses patient 2 and consents; ends at the app's answer."""
    async with httpx.AsyncClient(base_url=server.base.removesuffix("/fhir"), timeout=60, follow_redirects=True) as http:
        browser = Browser(http)
        await browser.open(address)
        await browser.sign_in()
        await browser.submit(patient="pat2")
        await browser.allow()
        return browser


@pytest.mark.parametrize(("client", "secret"), [("app", ""), ("portal", SECRET)], ids=["public", "confidential"])
async def test_python_fhirclient(server: Server, app: App, python_packages: Path, client: str, secret: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(python_packages)}
    whole = [sys.executable, str(HERE / "python_fhirclient.py"), server.base, app.back, client, secret]
    process = subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    await person(server, process.stdout.readline().strip())
    arrived = f"http://127.0.0.1:{app.port}{app.arrived.get(timeout=20)}"
    out, problems = process.communicate(arrived + "\n", timeout=120)
    assert process.returncode == 0, problems
    assert json.loads(out) == EXPECTED


@contextmanager
def node_app(script: str, packages: Path, server: Server, client: str, secret: str) -> Iterator[str]:
    """A node app that listens; its address. It is registered under its own redirect address."""
    port = free_port()
    kind = ("--kind", "symmetric", "--secret-file", "-") if secret else ("--kind", "public")
    name = f"{client}-{port}"
    command(server, "client", "add", name, *kind, "--redirect-uri", f"http://127.0.0.1:{port}/back", "--scope", SCOPES, stdin=secret)
    shutil.copy(HERE / script, packages / script)
    whole = ["node", str(packages / script), server.base, str(port), name, secret]
    process = subprocess.Popen(whole, cwd=packages, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "listening", process.stderr.read() if process.stderr else ""
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("secret", ["", SECRET], ids=["public", "confidential"])
@pytest.mark.parametrize("script", ["npm_fhirclient.cjs", "npm_fhir_kit_client.mjs"])
async def test_npm_clients(server: Server, npm_packages: Path, script: str, secret: str) -> None:
    with node_app(script, npm_packages, server, script.partition(".")[0], secret) as address:
        browser = await person(server, address + "/launch")
        assert browser.page.status_code == 200, browser.page.text
        told = json.loads(browser.page.text)
    assert {name: told[name] for name in EXPECTED} == EXPECTED
    if script == "npm_fhirclient.cjs":
        assert told["user"] == "Practitioner/p1"

"""Headless Chromium by the W3C WebDriver protocol, spoken with httpx. https://www.w3.org/TR/webdriver2/"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.running import free_port

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1000,900",
]


@dataclass
class Chromium:
    """One browser session."""

    http: httpx.Client
    session: str

    def call(self, method: str, path: str, **body: Any) -> Any:
        """One WebDriver command; its value."""
        reply = self.http.request(method, f"/session/{self.session}{path}", json=body if method == "POST" else None)
        value = reply.json()["value"]
        assert reply.status_code == 200, value
        return value

    def go(self, url: str) -> None:
        """Open an address."""
        self.call("POST", "/url", url=url)

    def find(self, css: str) -> list[str]:
        """Elements."""
        return [row[ELEMENT] for row in self.call("POST", "/elements", using="css selector", value=css)]

    def type(self, css: str, text: str) -> None:
        """Type into the one element."""
        (one,) = self.find(css)
        self.call("POST", f"/element/{one}/value", text=text)

    def click(self, css: str) -> None:
        """Click on the first element."""
        self.call("POST", f"/element/{self.find(css)[0]}/click")

    def follow(self, css: str) -> None:
        """Click on the first element, and wait until the page it leads to is there."""
        self.script("document.documentElement.dataset.left = 'yes'; arguments[arguments.length - 1]()")
        self.click(css)
        for _ in range(400):
            here = "arguments[arguments.length - 1](document.readyState === 'complete' && !document.documentElement.dataset.left)"
            if self.http.post(f"/session/{self.session}/execute/async", json={"script": here, "args": []}).json()["value"] is True:
                return
            time.sleep(0.025)
        raise AssertionError(f"{css} led nowhere")

    def arrive(self, title: str) -> None:
        """Wait until a page with this title is there."""
        for _ in range(400):
            if self.title == title:
                return
            time.sleep(0.025)
        raise AssertionError(f"arrived at {self.title!r}, not at {title!r}")

    def keys(self, text: str) -> None:
        """Press keys wherever the focus is."""
        presses = [{"type": kind, "value": sign} for sign in text for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": presses}])

    def script(self, text: str, *arguments: Any) -> Any:
        """Run a script as the test (the page's own policy does not concern it)."""
        return self.call("POST", "/execute/async", script=text, args=list(arguments))

    @property
    def title(self) -> str:
        return str(self.call("GET", "/title"))

    @property
    def url(self) -> str:
        return str(self.call("GET", "/url"))

    @property
    def text(self) -> str:
        (body,) = self.find("body")
        return str(self.call("GET", f"/element/{body}/text"))


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A fresh browser; skips the test where Chromium or its driver is not installed."""
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or browser is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    port = free_port()
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            _wait(http)
            options = {"binary": browser, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            made = http.post("/session", json={"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}).json()[
                "value"
            ]
            assert "sessionId" in made, made
            try:
                yield Chromium(http, made["sessionId"])
            finally:
                http.delete(f"/session/{made['sessionId']}")
    finally:
        process.terminate()
        process.wait(20)


def _wait(http: httpx.Client) -> None:
    for _ in range(100):
        try:
            if http.get("/status").json()["value"]["ready"]:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("chromedriver did not start")

"""The README says what the code says."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_search_parameter_types_is_the_codes() -> None:
    printed = subprocess.run([sys.executable, "-m", "fhir_server.search.table"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() in README


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[<>=;\[ ]", one)[0] for one in project["dependencies"]}
    missing = [name for name in sorted(named) if not re.search(rf"(^|[^\w-]){re.escape(name)}([^\w-]|$)", README)]
    assert not missing


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_tours_bodies_are_json() -> None:
    for body in re.findall(r"-d '(\{.*?\})'", README, re.S):
        json.loads(body)

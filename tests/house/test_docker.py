"""The compose files parse and agree with the code; the image's install steps run in a clean folder."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from fhir_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {one.metadata["variable"] for one in fields(Settings)}
COMPOSE = ("compose.yaml", "compose.sharded.yaml")


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_services_depend_on_services_that_exist_and_set_variables_that_exist(name: str) -> None:
    document = yaml.safe_load((ROOT / "docker" / name).read_text(encoding="utf-8"))
    services = document["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service.get("environment", {})) <= VARIABLES
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in document["volumes"]
    assert services["exchange"]["environment"]["FHIR_MONGODB_URI"].startswith("mongodb://")


def test_dockerfile_copies_what_exists_runs_as_nobody_and_sets_variables_that_exist() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert re.search(r"^USER 10001:10001$", text, re.M)
    assert set(re.findall(r"\b(FHIR_[A-Z_]+)=", text)) <= VARIABLES


@pytest.mark.slow
def test_the_install_steps_of_the_image_run_in_a_clean_folder(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(source)], check=True, timeout=540)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FHIR_"))}
    done = subprocess.run([str(python.parent / "fhir-exchange"), "--help"], capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout

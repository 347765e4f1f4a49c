"""House rules that no linter knows: file and function sizes, names, no path outside the repository. `python -m tests.house.rules`."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("conformance", "terminology", "mappers", "fhir_server")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}
MAX_FILE, MAX_FUNCTION = 700, 80
OUTSIDE = "../" + "shared"


def problems() -> list[str]:
    """Every breach, one line each."""
    found: list[str] = []
    for path in _sources():
        rel = path.relative_to(ROOT)
        text = path.read_text(encoding="utf-8")
        if path.stem in FORBIDDEN_NAMES:
            found.append(f"{rel}: a module is named after its job, not '{path.stem}'")
        if rel.parts[0] in PACKAGES:
            found += _sizes(rel, text)
        if OUTSIDE in text and rel.parts[0] in PACKAGES:
            found.append(f"{rel}: names a path outside the repository")
    return found


def _sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in listed if (ROOT / name).exists()]


def _sizes(rel: Path, text: str) -> list[str]:
    found = []
    lines = text.count("\n")
    if lines > MAX_FILE:
        found.append(f"{rel}: {lines} lines, the most is {MAX_FILE}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                found.append(f"{rel}:{node.lineno}: {node.name} has {length} lines, the most is {MAX_FUNCTION}")
            if any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node)):
                found.append(f"{rel}:{node.lineno}: {node.name} imports inside the function")
    return found


def main() -> int:
    """Print the breaches; exit code 1 if there are any."""
    found = problems()
    print("\n".join(found) or "house rules: kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

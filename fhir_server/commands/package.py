"""`package install` and `package list`: implementation guides on the shelf of the data directory."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from conformance.package import open_package
from conformance.shelf import install, installed, names
from fhir_server.settings import from_environment

app = typer.Typer(help="Install FHIR packages (implementation guides).", no_args_is_help=True)
console = Console(stderr=True)


@app.command(name="install")
def install_package(
    path: Annotated[Path, typer.Argument(help="The package: a .tgz or a folder.")],
    dependencies: Annotated[Path | None, typer.Option("--from", help="Folder in which the packages it depends on lie.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the exchange's data (FHIR_DATA_DIR).")] = None,
) -> None:
    """Install one package and what it depends on; a running exchange takes it up within seconds."""
    settings = from_environment(data_dir=data_dir)
    made = install(path, settings.data_dir / "packages", dependencies)
    for issue in made.issues:
        console.print(f"{issue.severity}: {issue.text}", highlight=False)
    console.print("installed: " + ", ".join(names(made.packages)), highlight=False)


@app.command(name="list")
def list_packages(data_dir: Annotated[Path | None, typer.Option(help="Folder of the exchange's data (FHIR_DATA_DIR).")] = None) -> None:
    """List the packages that are installed."""
    settings = from_environment(data_dir=data_dir)
    for name in names(open_package(each) for each in installed(settings.data_dir / "packages")):
        console.print(name, highlight=False)

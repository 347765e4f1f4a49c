"""`package install` and `package list`: implementation guides on the shelf of the data directory, or of a tenant's part of it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from conformance.package import open_package
from conformance.shelf import install, installed, names
from fhir_server.commands import opened
from fhir_server.commands.opened import MongoUri, TenantName

app = typer.Typer(help="Install FHIR packages (implementation guides).", no_args_is_help=True)
console = Console(stderr=True)
DataDir = Annotated[Path | None, typer.Option(help="Folder of the exchange's data (FHIR_DATA_DIR).")]


def _shelf(where: opened.Where) -> Path:
    """The folder of the packages. Raises ValueError for a tenant that is not registered."""
    settings = where.settings
    if where.tenant:
        with opened.database(settings) as uri:
            settings, _ = asyncio.run(opened.settings_of(where, uri))
    return settings.data_dir / "packages"


@app.command(name="install")
def install_package(
    path: Annotated[Path, typer.Argument(help="The package: a .tgz or a folder.")],
    dependencies: Annotated[Path | None, typer.Option("--from", help="Folder in which the packages it depends on lie.")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Install one package and what it depends on; a running exchange takes it up within seconds."""
    made = install(path, _shelf(opened.at(data_dir, mongodb_uri, tenant)), dependencies)
    for issue in made.issues:
        console.print(f"{issue.severity}: {issue.text}", highlight=False)
    console.print("installed: " + ", ".join(names(made.packages)), highlight=False)


@app.command(name="list")
def list_packages(data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """List the packages that are installed."""
    for name in names(open_package(each) for each in installed(_shelf(opened.at(data_dir, mongodb_uri, tenant)))):
        console.print(name, highlight=False)

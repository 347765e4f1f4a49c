"""`terminology load`: releases of code systems into the data directory; running workers take them up by themselves."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from fhir_server.settings import from_environment
from terminology.load import FORMATS, load

app = typer.Typer(help="Load code systems, value sets and concept maps.", no_args_is_help=True)
console = Console(stderr=True)


@app.command(name="load")
def load_release(
    kind: Annotated[str, typer.Argument(help="The release's format: " + ", ".join(FORMATS))],
    paths: Annotated[list[Path], typer.Argument(help="The release: folder, archive or files.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the exchange's data (FHIR_DATA_DIR).")] = None,
) -> None:
    """Load one release; versions stand side by side, the same version again replaces itself."""
    if kind not in FORMATS:
        raise ValueError(f"'{kind}' is no release format: " + ", ".join(FORMATS))
    settings = from_environment(data_dir=data_dir)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"loading {kind}", total=1.0)
        names = load(kind, paths, settings.data_dir / "terminology", lambda step, share: bar.update(task, description=step, completed=share))
    console.print("in force: " + ", ".join(names), highlight=False)

"""`terminology load`: reads a release of one format and puts it on the shelf, atomically and repeatably."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from terminology.drafting import Progress, silent
from terminology.load.fhir import load_fhir
from terminology.load.icd10cm import load_icd10cm
from terminology.load.loinc import load_loinc
from terminology.load.rf2 import load_snomed
from terminology.load.rxnorm import load_rxnorm
from terminology.shelf import put

RELEASES: Mapping[str, Callable[[Sequence[Path], Path, Progress], Path]] = {
    "snomed": load_snomed,
    "loinc": load_loinc,
    "icd10cm": load_icd10cm,
    "rxnorm": load_rxnorm,
}
FORMATS = (*RELEASES, "fhir")


def load(kind: str, paths: Sequence[Path], folder: Path, progress: Progress = silent) -> list[str]:
    """Loads a release of `kind` (FORMATS) into the data folder and returns the names that came into force.

    progress(step, share of 1) is called as it goes. Versions stand side by side; the same version again replaces itself. Nothing of the shelf changes
    before the load is whole. Raises BadRelease (the release), KeyError (the kind), OSError (the disk).
    """
    names, files = draft(kind, paths, folder, progress)
    put(folder, names, files)
    progress("in force", 1.0)
    return names + files


def draft(kind: str, paths: Sequence[Path], folder: Path, progress: Progress = silent) -> tuple[list[str], list[str]]:
    """The same without bringing it into force: (names of indexes, names of resource files), for who brings them into force everywhere at once."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "fhir":
        indexes, resources = load_fhir(paths, folder, progress)
        return [each.name for each in indexes], [resources.name] if resources is not None else []
    return [RELEASES[kind](paths, folder, progress).name], []

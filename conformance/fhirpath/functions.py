"""All functions by name: (least arguments, most arguments, maker of the step). https://hl7.org/fhirpath/N1/#functions"""

from collections.abc import Callable

from conformance.fhirpath import collections, convert, fhir, mathematics, strings
from conformance.fhirpath.context import Apply

Row = tuple[int, int, Callable[..., Apply]]
TABLE: dict[str, Row] = {**collections.TABLE, **convert.TABLE, **fhir.TABLE, **mathematics.TABLE, **strings.TABLE}

"""The index document of a resource: the search engine's, and a key for each reference that no search parameter covers.

With it every reference to a resource can be found, so that a deletion leaves none dangling. Used by commit and by reindexing, so that
both always write the same.
"""

from collections.abc import Sequence

from conformance.spec import Spec
from fhir_server.context import Context, Resource
from fhir_server.interactions.references import literal, references
from fhir_server.query.clauses import Index
from fhir_server.search.extract import extractor
from fhir_server.search.keys import OTHER, referenced

MISSHAPEN = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError)  # what extraction meets where the gate did not look


def index_of(ctx: Context, res: Resource, texts: Sequence[str] | None = None, prose: Sequence[Sequence[str]] | None = None) -> Index:
    """The index document to store beside `res`. texts: `references(res)`, prose: `special.prose_of(res)`, if known already."""
    return indexed(ctx.spec, ctx.base, res, texts, prose)


def indexed(spec: Spec, base: str, res: Resource, texts: Sequence[str] | None = None, prose: Sequence[Sequence[str]] | None = None) -> Index:
    """The same, without a context."""
    index = extractor(spec, None, base)(res, prose)
    texts = references(res) if texts is None else texts
    known = referenced(index) if texts else set()
    rest = [text for text in texts if text not in known]
    if rest:
        found = {f"{target[0]}/{target[1]}" for text in rest if (target := literal(text, f"{base}/", spec.types))} - known
        if found:
            index["k"] = [*index.get("k", ()), *sorted(f"{OTHER}={name}" for name in found)]
    return index

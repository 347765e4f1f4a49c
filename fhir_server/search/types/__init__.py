"""One file per search parameter type: how its values are stored (`emitter`) and what a query's value means (`clause`).

Every file follows https://hl7.org/fhir/R4/search.html#ptypes; docs/search.md has a page for each.
"""

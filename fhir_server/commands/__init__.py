"""Sub-commands of `fhir-exchange` that work on a store beside the running server (or on a stopped one)."""

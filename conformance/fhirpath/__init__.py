"""FHIRPath N1 (https://hl7.org/fhirpath/N1/) as R4 uses it, compiled to closures: syntax -> parser -> check -> compile, with values and functions beside."""

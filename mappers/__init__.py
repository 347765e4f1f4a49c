"""How other formats become FHIR, and back. Pure: bytes in, Bundle out."""

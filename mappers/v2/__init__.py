"""HL7 v2 messages to FHIR R4 transaction Bundles, and back, by tables."""

"""What FHIR R4 is: its tables, codec, paths and checks. No server, no database, no network."""

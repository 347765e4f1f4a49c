"""What codes mean: code systems, value sets, maps and units. No server, no database."""

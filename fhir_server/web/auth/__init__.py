"""The authorization server's HTTP surface: JSON endpoints and pages."""

"""Clauses over index documents: what search, conditional interactions, scopes and subscriptions are compiled to."""

"""The parts of the gate, one kind of rule a file; `conformance.validate` is the door."""

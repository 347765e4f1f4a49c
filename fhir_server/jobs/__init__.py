"""Package marker; see the README beside it."""

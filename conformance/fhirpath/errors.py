"""What can be wrong with an expression: its text, its types, or its evaluation. Messages name functions and places, never data."""


class PathProblem(ValueError):
    """An expression cannot be used or evaluated; the base of the three kinds."""


class SyntaxProblem(PathProblem):
    """The text is not FHIRPath, or exceeds a limit on length or nesting."""


class SemanticProblem(PathProblem):
    """The text is FHIRPath but makes no sense for its types: an unknown function, element, type or number of arguments."""


class ExecutionProblem(PathProblem):
    """The evaluation failed: several items where one is needed, operands of the wrong type, or a budget that is spent."""

"""What the broken recipes beside this file name; it is parsed, and never run."""


def build(width: int) -> None:
    raise AssertionError("a target was run before submission")


def loss(outputs: object, targets: object) -> None:
    raise AssertionError("a target was run before submission")


def numbers() -> None:
    raise AssertionError("a target was run before submission")

"""What Argo makes of `{{…}}`, of conditions and of dependencies: the forms that Metaflow writes; others are errors."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping

PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}")
BASE64 = re.compile(r"=toBase64\((?P<of>[a-z.]+)\['(?P<name>[^']+)'\]\)")
COMPARISON = re.compile(r"(?P<left>'[^']*'|\S+) (?P<sign>==|!=) (?P<right>'[^']*'|\S+)")
WORDS = {word: word for word in ("true", "Succeeded", "Failed", "Error")}


class NotMetaflow(Exception):
    """Argo may know this form, but Metaflow didn't write it when the local Argo was made: teach it there."""


def substitute(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders filled in, once: a value that holds one keeps it."""
    return PLACEHOLDER.sub(lambda found: _value(found.group(1), values), text)


def holds(condition: str, values: Mapping[str, object]) -> bool:
    """Whether a comparison is true: `field == 'x'`, `Failed != Succeeded`, or several of them joined by ` || `."""
    return any(_compare(part, {**WORDS, **values}) for part in condition.split(" || "))


def dependencies(depends: str) -> list[str]:
    """The tasks that must have succeeded: `a` and `b` of `a.Succeeded && b.Succeeded`."""
    terms = depends.split(" && ") if depends else []
    if any(not re.fullmatch(r"[\w-]+\.Succeeded", term) for term in terms):
        raise NotMetaflow(depends)
    return [term.removesuffix(".Succeeded") for term in terms]


def _value(expression: str, values: Mapping[str, str]) -> str:
    if expression in values:
        return values[expression]
    encoded = BASE64.fullmatch(expression)
    if encoded and (name := f"{encoded['of']}.{encoded['name']}") in values:
        return b64encode(values[name].encode()).decode()
    raise NotMetaflow(f"{{{{{expression}}}}}: only {', '.join(sorted(values))} are known")


def _compare(comparison: str, values: Mapping[str, object]) -> bool:
    found = COMPARISON.fullmatch(comparison)
    if not found:
        raise NotMetaflow(comparison)
    left, right = (_operand(found[side], values) for side in ("left", "right"))
    return (left == right) is (found["sign"] == "==")


def _operand(operand: str, values: Mapping[str, object]) -> object:
    if operand.startswith("'"):
        return operand.strip("'")
    if operand not in values:
        raise NotMetaflow(operand)
    return values[operand]

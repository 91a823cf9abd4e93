"""Compare objects with the schemas of Kubernetes and of KEDA; a field that they do not know is a mistake."""

from __future__ import annotations

import kubernetes_validate
from cloudcoil.models.keda import v1alpha1 as keda
from pydantic import ValidationError

from tests.kubernetes.rendering import Object

OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
"""Versions of Kubernetes: the first that needs no feature gate for these files, and the newest known here."""


def problem(found: Object, version: str) -> str | None:
    """Say what a schema has against an object; None if nothing."""
    if found["kind"] == "ScaledObject":
        return _problem_of_keda(found)
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return None


def _problem_of_keda(found: Object) -> str | None:
    """The models ignore fields that they do not know, so what they have read is compared."""
    try:
        read = keda.ScaledObject.model_validate(found)
    except ValidationError as error:
        return str(error)
    kept = read.model_dump(by_alias=True, exclude_unset=True)
    return None if kept == found else f"not all of this is known: {found}"

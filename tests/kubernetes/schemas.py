"""Compare objects with the schemas of Kubernetes and of KEDA; a field that they do not know is a mistake.

What holds the schemas is imported where it is used: it takes seconds, and every process collects this file.
"""

from __future__ import annotations

from pathlib import Path

from tests.kubernetes.rendering import Object

OLDEST = "1.30"
"""The first version of Kubernetes that needs no feature gate for these files."""


def newest() -> str:
    """Return the newest version of Kubernetes that is known here."""
    import kubernetes_validate

    return kubernetes_validate.latest_version()


def schemas() -> Path:
    """Return the folder with the schemas of the newest version."""
    import kubernetes_validate

    return Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{newest()}-local"


def problem(found: Object, version: str) -> str | None:
    """Say what a schema has against an object; None if nothing."""
    import kubernetes_validate

    if found["kind"] == "ScaledObject":
        return _problem_of_keda(found)
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return None


def _problem_of_keda(found: Object) -> str | None:
    """The models ignore fields that they do not know, so what they have read is compared."""
    from cloudcoil.models.keda import v1alpha1 as keda
    from pydantic import ValidationError

    try:
        read = keda.ScaledObject.model_validate(found)
    except ValidationError as error:
        return str(error)
    kept = read.model_dump(by_alias=True, exclude_unset=True)
    return None if kept == found else f"not all of this is known: {found}"

"""The packages that the extra `serve` installs: where one is missing, say once what to install."""

from importlib.util import find_spec

NEEDED = (
    *(
        "cachetools",
        "click",
        "fastapi",
        "h11",
        "httpx2",
        "huggingface_hub",
        "isal",
        "llguidance",
        "msgpack",
        "numpy",
        "PIL",
    ),
    *("prometheus_client", "pydantic", "pydantic_settings", "python_multipart", "rich", "safetensors"),
    *("simplejpeg", "structlog", "torchvision", "transformers", "uvicorn"),
)
"""What some part of the service imports, what the extras `depth` and `vlm` install included."""


def missing() -> tuple[str, ...]:
    """Return the names of packages that are not installed."""
    return tuple(name for name in NEEDED if find_spec(name) is None)


def sentence(name: str, packages: tuple[str, ...]) -> str:
    """Say what to install for a part of the service of this name."""
    return f"{name} needs {', '.join(packages)}: pip install 'tosa-vqa[serve]'"


def require() -> None:
    """Raise ModuleNotFoundError where a package is missing, before something deep inside fails."""
    packages = missing()
    if packages:
        raise ModuleNotFoundError(sentence("service", packages), name=packages[0])

"""Images that cannot be pulled, made from Debian's packages under the same names: for tests only."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.containers.compose_file import services
from bench.containers.engine import ROOT, WORK, Engine, EngineFailed, program

DEBIAN_PYTHON = "docker.io/library/python:3.11-bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Those of this machine: what it trusts, the images made here trust."""
STAND_INS = {
    "haproxy": """
RUN apt-get update && apt-get install --yes --no-install-recommends haproxy wget
ENTRYPOINT ["/bin/sh", "-c", "shift; exec haproxy -W -db \\"$@\\"", "entrypoint"]
""",
    "prom/prometheus": """
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus wget \\
    && rm -rf /prometheus && install --directory --owner 65534 --group 65534 /prometheus
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
""",
    "grafana/grafana": """
RUN apt-get update && apt-get install --yes --no-install-recommends wget \\
    && mkdir --parents /srv/api && echo ok >/srv/api/health
ENTRYPOINT ["python", "-m", "http.server", "3000", "--directory", "/srv"]
""",
    "vllm/vllm-openai": """
RUN apt-get update && apt-get install --yes --no-install-recommends g++ python3-dev libnuma1 libgomp1
ENV PYTHONPATH=/vllm/lib/python3.11/site-packages
""",
}
"""What follows FROM in a stand-in, by the name of the image.

Grafana is not in Debian: its stand-in answers the health check, and nothing else. vLLM's packages are mounted
where it runs.
"""
VLLM = ROOT / ".venv-vllm"
LANGUAGE_CPU = ROOT / "docker" / "compose.language-cpu.yaml"


def python_image(engine: Engine) -> str:
    """Return the base image: the Dockerfile's own where it can be had, else one of Debian's packages."""
    (wanted,) = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text())
    if engine.has(DEBIAN_PYTHON):
        return DEBIAN_PYTHON
    if engine.has(wanted) or engine.tried("pull", wanted, timeout_s=600).returncode == 0:
        return wanted
    bootstrap(engine)
    return DEBIAN_PYTHON


def bootstrap(engine: Engine) -> None:
    """Import Debian with Python as an image. Raises EngineFailed where debootstrap is missing."""
    if program("debootstrap") is None:
        raise EngineFailed("no base image can be pulled, and debootstrap is missing")
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        folder = Path(scratch) / "root"
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        words = ["debootstrap", "--variant=minbase", packages, "bookworm", str(folder), mirror()]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        (folder / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
        (folder / "usr/bin/python").symlink_to("python3")
        shutil.copy(CERTIFICATES, folder / CERTIFICATES.relative_to("/"))
        for part in ("var/cache/apt", "var/lib/apt/lists", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(folder / part, ignore_errors=True)
        for each in (folder / "usr/share/doc").glob("*/*"):
            if each.name != "copyright" and not each.is_dir():
                each.unlink()
        archive = Path(scratch) / "root.tar"
        subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
        settings = (f"SSL_CERT_FILE={CERTIFICATES}", f"PIP_CERT={CERTIFICATES}", "UV_SYSTEM_CERTS=1")
        changes = [word for each in settings for word in ("--change", f"ENV {each}")]
        engine("import", *changes, str(archive), DEBIAN_PYTHON, timeout_s=600)


def mirror() -> str:
    """Return where apt gets Debian from, as its own sources say."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(each.read_text() for each in files if each.is_file())
    found = re.findall(r"(?m)^(?:URIs: *|deb +(?:\[.*?\] +)?)(\S+/debian)/?(?:\s|$)", text)
    if not found:
        raise EngineFailed("apt's sources name no mirror of Debian")
    return found[0]


def stand_ins(engine: Engine) -> list[str]:
    """Make what the compose file names and nobody can pull; return the names that are missing still."""
    missing = []
    for service in services().values():
        image = service["image"]
        if "build" in service or "$" in image or engine.has(image):
            continue
        if engine.tried("pull", image, timeout_s=600).returncode == 0:
            continue
        name = image.rpartition(":")[0]
        if name in STAND_INS and engine.has(DEBIAN_PYTHON):
            full = f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"
            text = f"FROM {DEBIAN_PYTHON}\n{STAND_INS[name]}"
            engine("build", *engine.build_options, "--tag", full, "-", input=text, timeout_s=600)
        else:
            missing.append(image)
    return missing

"""Write a bill of materials of each image from its lock, in CycloneDX 1.6.

The same lock gives the same bytes: there is no time in it, and its serial number is a digest of the rest.
`--root` adds Debian's packages, from the root file system of an image.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packageurl import PackageURL

from bench.supply_chain.licences import Licence, listed
from bench.supply_chain.pins import IMAGES, contents
from tests.locks import ROOT, Pin

MODELS = {"room-tiny": ROOT / "vlm" / "checkpoints", "room-depth-tiny": ROOT / "depth" / "checkpoints"}
STATUS = "var/lib/dpkg/status"
Part = dict[str, Any]


def bill(image: str, root: Path | None = None) -> str:
    """Return the bill of an image as JSON. Raises KeyError for a package whose licence is not listed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version, ours = project["name"], project["version"], project["license"]
    itself = {"type": "container", "bom-ref": f"{name}:{image}", "name": name, "version": version}
    licences = listed()
    parts = [_package(pin, licences[pin.name]) for pin in contents(image)]
    parts += [_model(each, folder / each, ours) for each, folder in MODELS.items()]
    status = "" if root is None else (root / STATUS).read_text(encoding="utf-8")
    parts += map(_debian, debian_packages(status))
    body = {
        "metadata": {"component": itself | _licensed(ours)},
        "components": parts,
        "dependencies": [{"ref": itself["bom-ref"], "dependsOn": [each["bom-ref"] for each in parts]}],
    }
    serial = f"urn:uuid:{uuid5(NAMESPACE_URL, json.dumps(body))}"
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": serial, "version": 1}
    return json.dumps(head | body, indent=1) + "\n"


def _licensed(expression: str) -> Part:
    return {"licenses": [{"expression": expression}]}


def _sha256(digest: str) -> Part:
    return {"alg": "SHA-256", "content": digest}


def _package(pin: Pin, licence: Licence) -> Part:
    """Describe a package; a lock knows the hashes of all its files, of which an image has one."""
    assert licence.version == pin.version, f"{pin.name}: run make licences"
    purl = str(PackageURL("pypi", None, pin.name, pin.version))
    hashes = [_sha256(each.removeprefix("sha256:")) for each in pin.hashes]
    files = {"type": "distribution", "url": purl, "comment": "One of these files.", "hashes": hashes}
    part = {"type": "library", "bom-ref": purl, "name": pin.name, "version": pin.version, "purl": purl}
    return part | _licensed(licence.expression) | ({"externalReferences": [files]} if hashes else {})


def _model(name: str, folder: Path, licence: str) -> Part:
    """Describe a checkpoint inside the package, with the digests of its files."""
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    files = [{"type": "file", "name": file, "hashes": [_sha256(digest)]} for digest, file in lines]
    part = {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name}
    return part | _licensed(licence) | {"components": files}


def _debian(package: tuple[str, str, str]) -> Part:
    """Describe a package of Debian; its licence is in /usr/share/doc of the image."""
    name, version, architecture = package
    purl = str(PackageURL("deb", "debian", name, version, {"arch": architecture}))
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def debian_packages(status: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, version and architecture of what is installed by the status file of dpkg."""
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
        )
        if fields.get("Status", "").endswith(" installed"):
            yield fields["Package"], fields["Version"], fields["Architecture"]


def main() -> None:
    """Write the bills of all images, or of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder to write IMAGE.cdx.json to.")
    parser.add_argument("--image", choices=IMAGES, help="Only this one.")
    parser.add_argument("--root", type=Path, help="Root file system of this image, for Debian's packages.")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for image in [given.image] if given.image else IMAGES:
        (given.out / f"{image}.cdx.json").write_text(bill(image, given.root), encoding="utf-8")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Resolve everything once, to the newest versions allowed, and write one file with hashes for each use:
# runtime (the extra serve, for images), tools (what installs), and dev, ray, load, peers, notebooks (each an extra that has serve in it).
# All hold the same versions, for Python 3.11 and newer on every platform; none names an index.
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-uv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() {
  "$UV" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
    --generate-hashes --no-emit-index-url --no-annotate --no-header "$@"
}

printf 'uv\nhatchling\neditables\n' >"$work/tools.in"
compile pyproject.toml "$work/tools.in" --all-extras --output-file "$work/all.txt"
compile "$work/tools.in" --constraints "$work/all.txt" --output-file "$work/tools.txt"
compile pyproject.toml --extra serve --constraints "$work/all.txt" --output-file "$work/runtime.txt"
for extra in dev ray load peers notebooks; do
  compile pyproject.toml --extra "$extra" --constraints "$work/all.txt" --output-file "$work/$extra.txt"
done
# The CPU images take torch from an index of its own, whose hashes differ: versions only.
grep -oE '^(torch|torchvision)==[0-9.]+' "$work/runtime.txt" >"$work/torch-cpu.txt"
rm "$work/all.txt"
mv "$work"/*.txt locks/

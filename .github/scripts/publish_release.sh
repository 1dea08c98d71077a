#!/usr/bin/env bash
# Makes the release of a tag on GitHub, with its section of CHANGELOG.md and its wheels: `publish_release.sh v0.1.0 WHEEL…`.
set -euo pipefail
cd "$(dirname "$0")/../.."
tag=$1
shift
python3 .github/scripts/release.py --notes "${tag#v}" > notes.md
gh release create "$tag" --verify-tag --title "elsa-ext ${tag#v}" --notes-file notes.md "$@"

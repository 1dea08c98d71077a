#!/usr/bin/env bash
# Writes the indexes of the wheels of all releases on GitHub into a folder: `index_releases.sh FOLDER`.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$1 wheels=build/released

rm -rf "$wheels"
tags=$(gh release list --limit 1000 --exclude-drafts --json tagName --jq '.[].tagName')
[ -n "$tags" ] || { echo "index_releases: there is no release yet"; exit; }
for tag in $tags; do
  gh release download "$tag" --pattern '*.whl' --dir "$wheels/$tag"
done
python3 .github/scripts/make_index.py "$wheels" --output "$folder" \
  --base-url "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/releases/download"

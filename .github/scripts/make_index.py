"""Write the indexes of wheels that ``pip install --extra-index-url`` reads: one for each kind, as cpu and cu130.

They have the form of PEP 503, which static files can have: ``OUTPUT/cu130/elsa-ext/index.html`` has a link to each
wheel for CUDA 13.0, with its hash and with what Python it needs.
"""

import argparse
import hashlib
import html
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from email.parser import BytesParser
from pathlib import Path
from urllib.parse import quote

PROJECT = "elsa-ext"
PAGE = "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>\n{links}\n</body></html>\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the indexes and print how many wheels each has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, metavar="WHEELS", help="a folder with the wheels, in folders by release")
    parser.add_argument("--base-url", required=True, metavar="URL", help="where people get what is in WHEELS")
    parser.add_argument("--output", type=Path, required=True, metavar="OUTPUT")
    args = parser.parse_args(argv)
    links = defaultdict(list)
    for wheel in sorted(args.wheels.rglob("*.whl")):
        local = re.match(r"elsa_ext-[^+-]+\+(\w+)-", wheel.name)
        if local is None:
            sys.exit(f"make_index: {wheel.name} has no local version, as elsa_ext-0.1.0+cpu-….whl has")
        url = f"{args.base_url.rstrip('/')}/{quote(wheel.relative_to(args.wheels).as_posix())}"
        links[local[1]].append(link(wheel, url))
    if not links:
        sys.exit(f"make_index: there is no wheel in {args.wheels}")
    for kind, of_kind in links.items():
        write(args.output / kind / "index.html", f"{PROJECT}, {kind}", [f'<a href="{PROJECT}/">{PROJECT}</a>'])
        write(args.output / kind / PROJECT / "index.html", f"{PROJECT}, {kind}", of_kind)
        print(f"{kind}: {len(of_kind)} wheels")


def link(wheel: Path, url: str) -> str:
    """Return the anchor of a wheel that is at a URL."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (name for name in file.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        requires_python = BytesParser().parsebytes(file.read(metadata))["Requires-Python"]
    return (
        f'<a href="{html.escape(url)}#sha256={digest}" data-requires-python="{html.escape(requires_python)}">'
        f"{html.escape(wheel.name)}</a>"
    )


def write(path: Path, title: str, links: Sequence[str]) -> None:
    """Write a page of links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PAGE.format(title=html.escape(title), links="<br>\n".join(links)), "utf-8")


if __name__ == "__main__":
    main()

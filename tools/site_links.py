"""For MkDocs: what pages link to outside of `docs/` comes with the site, as text.

On GitHub `../src/medusa_decoding/decoding/loop.py` leads to that file; a site has pages only. So each file
that is linked to is copied into the site, below `repository/`, and of a folder the list of its files. A link
to nothing is a warning, which `--strict` makes an error.
"""

from __future__ import annotations

import logging
import os.path
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?P<target>\.\.?/[^)#\s]+|[\w-][^):#\s]*)(?=[)#])")
log = logging.getLogger("mkdocs.hooks.site_links")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their copies."""
    here = PurePosixPath(page.file.src_uri).parent
    root = Path(config.docs_dir).parent

    def moved(link: re.Match[str]) -> str:
        place = os.path.normpath(PurePosixPath("docs") / here / link["target"])
        if place.startswith("docs/"):
            return link["target"]
        if place.startswith("..") or not (root / place).exists():
            log.warning("%s links to %s, which is not there", page.file.src_uri, link["target"])
            return link["target"]
        copy = f"repository/{place}.txt"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, content=_text(root / place)))
        return os.path.relpath(copy, here)

    return LINK.sub(moved, markdown)


def _text(path: Path) -> str:
    if path.is_dir():
        return "".join(f"{one.name}\n" for one in sorted(path.iterdir()))
    return path.read_text(encoding="utf-8")

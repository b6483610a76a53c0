"""The known vendors, and their files as statements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from exporter.core.errors import ExportError
from exporter.reconcile.exports import anthropic, google, openai
from exporter.reconcile.exports.items import Collector, Item, Remark
from exporter.reconcile.exports.records import Export, load
from exporter.reconcile.figures import Statement
from exporter.reconcile.reasons import Reason


class Vendor(NamedTuple):
    """How the exports of a vendor are recognised and read."""

    name: str
    fits: Callable[[Export], bool]
    read: Callable[[Export, Remark], Iterator[Item]]


VENDORS: Final[Mapping[str, Vendor]] = {
    "openai": Vendor(openai.NAME, openai.fits, openai.read),
    "anthropic": Vendor(anthropic.NAME, anthropic.fits, anthropic.read),
    "google": Vendor(google.NAME, google.fits, google.read),
}
"""By the vendor's id in price lists."""
MOST_FILES: Final = 200


def read(paths: Iterable[Path], vendor: str | None = None) -> list[Statement]:
    """One statement for each vendor that files are of. Blocks.

    Args:
        paths: The files, of usage and of costs, in any order.
        vendor: The only vendor that they may be of; None where their form tells.

    Raises:
        ExportError: A file cannot be read as what it is; it names the file, the row and the cure.

    """
    collectors: dict[str, Collector] = {}
    met: dict[bytes, str] = {}
    for number, path in enumerate(paths, 1):
        if number > MOST_FILES:
            raise ExportError(f"more than {MOST_FILES} files; name fewer at once")
        export, raw = load(path)
        name = _vendor(export, vendor)
        collector = collectors.setdefault(name, Collector(VENDORS[name].name, name))
        digest = hashlib.sha256(raw).digest()
        if digest in met:
            text = f"{export.name} is the same file as {met[digest]}, and counted once"
            collector.remark(Reason.DUPLICATE_ROWS, text)
            continue
        met[digest] = export.name
        collector.add(VENDORS[name].read(export, collector.remark))
    return [collector.statement() for collector in collectors.values()]


def _vendor(export: Export, wanted: str | None) -> str:
    if not export.records:
        raise ExportError(f"{export.name}: has no rows; export it once more")
    fitting = [name for name, vendor in VENDORS.items() if vendor.fits(export)]
    if not fitting:
        raise ExportError(
            f"{export.name}: is no export that is known; take one of {', '.join(VENDORS)} as docs/reconcile.md says"
        )
    if wanted is not None and wanted not in fitting:
        raise ExportError(f"{export.name}: is an export of {fitting[0]}, not of {wanted}; leave --vendor out")
    return fitting[0]

"""Read a store's files and find their faults, by file and line.

Opening a store, `store check` and `store repair` all use this scan: opening refuses a store with findings,
check lists them, repair keeps the intact lines.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib

from msgspec import Struct, field

from checkpoints.errors import IntegrityError
from checkpoints.files.directory import LOCK, Directory
from checkpoints.finding import Finding
from checkpoints.pod.codec import parse_line
from checkpoints.pod.metadata import META, StoreMetadata
from checkpoints.pod.segment_map import SegmentMap

_ATTEMPTS = 5  # while another process writes, a reader may meet files that were just moved

SEGMENT = re.compile(r"^(0|[1-9]\d*)\.json(\.gz)?$")


class StoreScan(Struct, kw_only=True):
    """The content of a store's files.

    Attributes:
        layout: every intact line.
        meta: the store's metadata; None if tastypy wrote the store.
        gzipped: whether the segments are compressed.
        counts: by segment, how many lines its file has.
        segments_with_duplicates: the segments with lines whose keys occur again later. They must be written
            first: if the later line is removed, the earlier one counts again.
        findings: the faults.
    """

    segment_map: SegmentMap
    meta: StoreMetadata | None = None
    gzipped: bool = False
    counts: list[int] = field(default_factory=list)
    segments_with_duplicates: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def add_finding(
        self, file: str, problem: str, *, line: int | None = None, harmless: bool = False
    ) -> None:
        """Add a finding."""
        self.findings.append(Finding(file=file, problem=problem, line=line, harmless=harmless))

    @property
    def errors(self) -> list[Finding]:
        """Return the findings that keep the store from being opened."""
        return [finding for finding in self.findings if not finding.harmless]


def segment_name(number: int, *, gzipped: bool) -> str:
    """Return the name of a segment's file."""
    return f"{number}.json.gz" if gzipped else f"{number}.json"


def scan_store(directory: Directory, *, file_size: int, gzipped: bool) -> StoreScan:
    """Read a whole store; `file_size` and `gzipped` apply if the disk does not hold them.

    Raises:
        OSError: a file cannot be read.
    """
    result = StoreScan(segment_map=SegmentMap(file_size), gzipped=gzipped)
    result.meta = _read_meta(directory, result)
    if result.meta is not None:
        result.segment_map.file_size, result.gzipped = result.meta.file_size, result.meta.gzipped
    last = _count_segments(directory, result)
    # From the last file to the first: a line that a writer moves forward meanwhile is read twice, not missed.
    contents = [_read_segment(directory, number, result) for number in range(last, -1, -1)][::-1]
    for number, data in enumerate(contents):
        _take_segment(number, data, result)
    _check_counts(result)
    return result


def scan_beside_a_writer(directory: Directory, *, file_size: int, gzipped: bool) -> StoreScan:
    """Read a store as `scan_store` does; repeat this while it has errors, which a writer may be causing.

    Raises:
        OSError: a file cannot be read.
    """
    for _ in range(_ATTEMPTS):
        result = scan_store(directory, file_size=file_size, gzipped=gzipped)
        if not result.errors:
            break
    return result


def is_store(directory: Directory) -> bool:
    """Return whether the directory holds a store; a store that was never written has only its lock."""
    return any(name in {META, LOCK} or SEGMENT.match(name) for name in directory.names())


def _read_meta(directory: Directory, result: StoreScan) -> StoreMetadata | None:
    try:
        return StoreMetadata.decode(directory.read(META))
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        result.add_finding(META, str(error))
        return None


def _count_segments(directory: Directory, result: StoreScan) -> int:
    """Return the number of the last segment, -1 when there is none."""
    found = [match for name in directory.names() if (match := SEGMENT.match(name))]
    compressed = {bool(match[2]) for match in found}
    if len(compressed) == 2:
        result.add_finding(
            found[0].string, "plain and gzipped segments are mixed: one of the two is not this store's"
        )
    if compressed:
        result.gzipped = max(compressed) if result.meta is None else result.gzipped
    numbers = {int(match[1]) for match in found if bool(match[2]) == result.gzipped}
    for missing in sorted(set(range(max(numbers, default=-1))) - numbers):
        result.add_finding(segment_name(missing, gzipped=result.gzipped), "the file is missing")
    return max(numbers, default=-1)


def _read_segment(directory: Directory, number: int, result: StoreScan) -> bytes | None:
    name = segment_name(number, gzipped=result.gzipped)
    try:
        data = directory.read(name)
        return gzip.decompress(data) if result.gzipped else data
    except FileNotFoundError:
        return None  # found by its number already
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        result.add_finding(name, f"it cannot be decompressed: {error}")
        return _decompress_what_is_whole(data)


def _decompress_what_is_whole(data: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)  # 31: gzip's header
    with contextlib.suppress(zlib.error):
        return decompressor.decompress(data)
    return b""


def _take_segment(number: int, data: bytes | None, result: StoreScan) -> None:
    result.segment_map.add_segment()
    result.counts.append(0)
    if data is None:
        return
    name = segment_name(number, gzipped=result.gzipped)
    *lines, rest = data.split(b"\n")
    for at, line in enumerate(lines, 1):
        _take_line(name, at, line, result)
    if rest:
        result.add_finding(name, "the last line has no end: it was cut off", line=len(lines) + 1)
    result.counts[-1] = len(lines)


def _take_line(name: str, at: int, line: bytes, result: StoreScan) -> None:
    try:
        key = parse_line(line)
    except ValueError as error:
        result.add_finding(name, str(error), line=at)
        return
    before = result.segment_map.append(key, line)
    if before is not None:
        result.segments_with_duplicates.add(before)
        result.add_finding(name, f"the key {key!r} is there before: this line counts", line=at, harmless=True)


def _check_counts(result: StoreScan) -> None:
    """Compare the numbers of lines with `.meta`, or with tastypy's rule if that is missing."""
    counts = result.counts
    bounds = _tastypys_bounds(result) if result.meta is None else list(result.meta.counts)
    for number, least in enumerate(bounds):
        name = segment_name(number, gzipped=result.gzipped)
        if number >= len(counts):
            result.add_finding(name, "the file is missing")
        elif counts[number] < least and not _known(name, result):
            result.add_finding(name, f"it has {counts[number]} lines of at least {least}: lines are lost")


def _tastypys_bounds(result: StoreScan) -> list[int]:
    """Return tastypy's bounds: all segments but the last are equally long, and the last has a line."""
    counts = result.counts
    if len(counts) > 1:
        result.segment_map.file_size = max(counts[0], 1)
    return [result.segment_map.file_size] * (len(counts) - 1) + [1] * bool(counts)


def _known(name: str, result: StoreScan) -> bool:
    return any(finding.file == name and not finding.harmless for finding in result.findings)

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from checkpoints import Seq
from pillows.errors import RetryableError
from pillows.feed.parsing.changes_parser import (
    _LARGE_BYTES,
    CUT_FACTOR,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    MAX_REVS_BYTES,
    MAX_SEQ_BYTES,
    ChangesParser,
    ContinuousParser,
    LineSplitter,
    MalformedFeedError,
    PageParser,
    ResponseEnd,
    excerpt,
    parse_change,
)
from tests.support.sizes import size
from tests.unit.pillows.feed.wire import PAGE_HEAD, closing, page, row

ODD_IDS = [
    "a\u2028b",
    "a\u2029",
    "\u000b",
    "\u0085x",
    "ä中",
    "with/slash",
    "a+b",
    "\x1c",
    '"quoted"',
    "tab\t",
]


def read(reader: ChangesParser, body: bytes, cuts: list[int] | None = None) -> list[str]:
    """Feeds a body in blocks cut where `cuts` says, and returns the ids that came out."""
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    ids = []
    for begin, end in pairwise(edges):
        ids += [change.id for change, _ in reader.feed(body[begin:end])]
    return ids


@given(st.lists(st.integers(0, 10_000), max_size=40))
def test_a_page_reads_the_same_however_it_is_cut(cuts: list[int]):
    reader = PageParser()
    assert read(reader, page([row(n) for n in range(7)], "7-x"), cuts) == [f"doc-{n}" for n in range(7)]
    assert reader.end is not None
    assert reader.end.last_seq == "7-x"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n\n\n", b"\r\n\n"])
def test_a_tail_is_cut_at_every_byte_with_blank_lines_and_both_line_ends(end: bytes):
    body = b"\n\n" + end.join([row(1), row(2), row(3)]) + end + closing("3-x")
    for cut in range(len(body)):
        reader = ContinuousParser()
        assert read(reader, body, [cut]) == ["doc-1", "doc-2", "doc-3"]
        assert reader.end is not None


def test_one_row_over_many_blocks_and_many_rows_in_one():
    long = row(1, doc={"_id": "doc-1", "text": "x" * 300_000})
    body = long + b"\n" + b"".join(row(n) + b"\n" for n in range(2, 500))
    assert len(read(ContinuousParser(), body, list(range(0, len(long), 1000)))) == 499


@pytest.mark.parametrize("id", ODD_IDS)
def test_ids_with_unicode_line_ends_stay_whole(id: str):
    assert read(ContinuousParser(), row(1, id=id) + b"\n") == [id]
    assert read(PageParser(), page([row(1, id=id), row(2)], "2-x")) == [id, "doc-2"]


def test_a_last_line_without_its_end_is_dropped():
    reader = ContinuousParser()
    assert read(reader, row(1) + b"\n" + row(2)) == ["doc-1"]
    assert reader.end is None


def test_a_page_without_its_closing_is_not_whole():
    whole = page([row(1), row(2)], "2-x")
    for end in range(len(whole)):
        reader = PageParser()
        read(reader, whole[:end])
        assert reader.end is None, whole[:end]


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"x","reason":"y"}\n',
        b"<html>\n",
        b'"just a string"\n',
        b"[]\n",
        b"\xff\xfe\x00\n",
        b'{"results":[],"last_seq":null}\n',
        b'{"results":{},"last_seq":"1"}\n',
        PAGE_HEAD + b'{"id":"x","changes":[]}\n',
        PAGE_HEAD + b'{"id":"x","changes":[{"rev":"norev"}]}\n',
        PAGE_HEAD + b'{"id":5,"changes":[{"rev":"1-a"}]}\n',
        PAGE_HEAD + b'],\n"last_seq":null,"pending":0}\n',
        PAGE_HEAD + b'],\n"pending":0}\n',
        page([], "1-x") + b"more\n",
        PAGE_HEAD + row(1)[:-1] + b"\xff}\n",
    ],
)
def test_what_is_no_list_of_changes_is_garbage_to_be_asked_for_again(body: bytes):
    with pytest.raises(MalformedFeedError) as raised:
        read(PageParser(), body)
    assert isinstance(raised.value, RetryableError)


@pytest.mark.parametrize(
    "line", [b'{"last_seq":null}', b'{"error":"nodedown"}', b"HTTP/1.1 412 Precondition Failed", b"{", b"]"]
)
def test_garbage_in_a_tail_is_garbage(line: bytes):
    with pytest.raises(MalformedFeedError):
        read(ContinuousParser(), line + b"\n")


@pytest.mark.parametrize("colon", [b":", b" : "])
def test_what_is_told_of_garbage_shows_nothing_of_a_document(colon: bytes):
    line = b'{"seq":"1-a","id":"x","changes":[],"doc"' + colon + b'{"diag":"HIV positive"}}'
    opening = b'{"results":[' + line + b"\n"
    for reader, body in (
        (PageParser(), PAGE_HEAD + line),
        (ContinuousParser(), line),
        (PageParser(), opening),
    ):
        with pytest.raises(MalformedFeedError, match='"doc"') as raised:
            read(reader, body + b"\n")
        assert "HIV" not in str(raised.value)


def test_an_answer_written_anew_by_a_proxy_on_one_line_is_understood():
    reader = PageParser()
    body = json.dumps(json.loads(page([row(1), row(2, None)], [7, "g1A"], 5))).encode() + b"\n"
    assert read(reader, body) == ["doc-1", "doc-2"]
    assert reader.end is not None
    assert (reader.end.last_seq, reader.end.pending) == ([7, "g1A"], 5)


def test_a_row_without_position_has_none_and_a_row_with_one_keeps_its_type():
    assert parse_change(row(1, None)).seq is None
    assert [parse_change(row(1, seq)).seq.value for seq in (7, "7-g1A", [7, "g1A"])] == [
        7,
        "7-g1A",
        [7, "g1A"],
    ]


def test_the_version_is_the_sum_of_the_generations_of_all_leaves():
    change = parse_change(row(1, changes=[{"rev": "3-a"}, {"rev": "2-b"}, {"rev": "12-c"}]))
    assert (change.leaf_version, change.revs, change.rev) == (17, ("3-a", "2-b", "12-c"), "3-a")


def test_a_body_stays_the_bytes_that_were_sent_and_a_deletion_has_none():
    assert parse_change(row(1, doc={"b": 1, "a": [1.0]})).raw == msgspec.Raw(b'{"b": 1, "a": [1.0]}')
    gone = parse_change(row(1, deleted=True, doc={"_id": "doc-1", "_deleted": True}))
    assert (gone.deleted, gone.raw) == (True, None)
    assert parse_change(row(1, doc=None)).raw is None


def test_a_document_that_nests_too_deep_is_handed_on_unread():
    doc = b'{"_id":"doc-1","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    line = b'{"seq":"1-x","id":"doc-1","changes":[{"rev":"1-a"}],"doc":' + doc + b"}"
    change = parse_change(line)
    assert (change.id, change.leaf_version) == ("doc-1", 1)
    assert change.raw == msgspec.Raw(doc)


def test_a_line_longer_than_allowed_is_refused_before_it_fills_the_memory():
    splitter = LineSplitter(max_line_bytes=1000)
    for _ in range(10):
        splitter.feed(b"x" * 100)
    with pytest.raises(MalformedFeedError, match="longer than 1000 bytes"):
        splitter.feed(b"x")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([row(1), row(2, None), PAGE_HEAD, b"],", b"\n", b"\r\n", closing("5-x")]),
        ),
        max_size=size(ci=20, proof=60),
    ),
    st.booleans(),
)
def test_any_bytes_in_any_blocks_end_in_changes_or_in_garbage(blocks: list[bytes], tail: bool):
    reader: ChangesParser = ContinuousParser() if tail else PageParser()
    try:
        for block in blocks:
            for change, _ in reader.feed(block):
                assert change.leaf_version > 0
                event("a change")
    except MalformedFeedError:
        event("garbage")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"x" * 120, repr(b"x" * 120)),
        (b"x" * 121, repr(b"x" * 120) + "..."),
        (b'{"doc": 1}', repr(b'{"doc":') + "..."),
        (b'{"doc"  :', repr(b'{"doc"  :')),
        (b"y" * 117 + b'"doc":1', repr(b"y" * 117 + b'"do') + "..."),
        (b"", "b''"),
    ],
)
def test_an_excerpt_ends_before_a_document_and_at_a_fixed_length(line: bytes, shown: str):
    assert excerpt(line) == shown


def test_every_change_comes_with_the_size_of_its_line():
    first, second = row(1), row(2, None)
    body = PAGE_HEAD + first + b",\r\n" + second + b"\n],\n" + b'"last_seq":"2-x"}\n'
    assert [size for _, size in PageParser().feed(body)] == [len(first), len(second)]
    assert [size for _, size in ContinuousParser().feed(b" \t" + first + b" \r\n")] == [len(first)]


def test_a_page_on_one_line_counts_its_documents_alone():
    line = json.dumps({"results": [json.loads(row(1)), json.loads(row(2, doc=None))], "last_seq": 2}).encode()
    doc = len(json.dumps(json.loads(row(1))["doc"]))
    parser = PageParser()
    assert [size for _, size in parser.feed(line + b"\n")] == [doc, len(b"null")]
    assert (parser.end.seq, parser.end.pending) == (Seq.of(2), None)


@pytest.mark.parametrize(
    ("parser", "body"),
    [
        (ContinuousParser, closing("1-x")),
        (PageParser, page([], "1-x")),
        (PageParser, b'{"results":[],"last_seq":"1-x"}\n'),
    ],
)
def test_nothing_may_follow_the_end_but_blank_lines(parser: type[ChangesParser], body: bytes):
    one = parser()
    assert read(one, body + b"\n\r\n \n") == []
    assert one.end.seq == Seq.of("1-x")
    with pytest.raises(MalformedFeedError):
        read(one, row(1) + b"\n")
    with pytest.raises(MalformedFeedError):
        read(one, closing("2-x"))


@pytest.mark.parametrize("revs", [[], ["0-a"], ["a"], ["-1"], ["x-1"]])
def test_a_row_without_a_valid_revision_is_malformed(revs: list[str]):
    with pytest.raises(MalformedFeedError, match="invalid row"):
        parse_change(row(1, changes=[{"rev": rev} for rev in revs]))


@pytest.mark.parametrize("max_line_bytes", [9, 10])
def test_a_line_may_be_exactly_as_long_as_allowed(max_line_bytes: int):
    splitter = LineSplitter(max_line_bytes=max_line_bytes)
    assert splitter.feed(b"1234") == []
    if max_line_bytes == 9:
        with pytest.raises(MalformedFeedError):
            splitter.feed(b"567890")
        return
    assert splitter.feed(b"567890") == []
    assert splitter.feed(b"\nab\n") == [b"1234567890", b"ab"]
    assert splitter.feed(b"0123456789") == []
    assert splitter.feed(b"") == []
    assert splitter.feed(b"\n") == [b"0123456789"]


def test_a_deleted_document_that_nests_too_deep_is_gone_and_other_deep_lines_are_malformed():
    deep = b"[" * 100_000 + b"]" * 100_000
    gone = b'{"seq":"1-x","id":"d","changes":[{"rev":"1-a"}],"deleted":true,"doc":{"a":' + deep + b"}}"
    change = parse_change(gone)
    assert (change.id, change.deleted, change.raw) == ("d", True, None)
    for line in (b'{"x":' + deep + b"}", b'{"id":5,"doc":{"a":' + deep + b"}}"):
        with pytest.raises(MalformedFeedError):
            parse_change(line)


def test_c4_a_line_may_be_64_mib_long_and_an_end_does_not_change():
    assert MAX_LINE_BYTES == 67_108_864
    with pytest.raises(AttributeError):
        ResponseEnd("1-x").pending = 5  # type: ignore[misc]


@pytest.mark.parametrize("seq", ["9" * 70_000, [1, "x" * 70_000]])
def test_c4_a_position_of_more_than_64_kib_is_malformed(seq: object):
    with pytest.raises(MalformedFeedError):
        parse_change(row(1, seq))
    for parser, body in ((ContinuousParser(), closing(seq)), (PageParser(), page([], seq))):
        with pytest.raises(MalformedFeedError):
            read(parser, body)
        assert parser.end is None


def test_c4_a_row_may_be_long_by_its_document_alone():
    long = "x" * 2**21
    assert parse_change(row(1, doc={"a": long})).raw is not None
    many = [{"rev": f"1-{n:032x}"} for n in range(50_000)]
    for bad in (row(1, changes=many), row(1, seq="1-" + long)):
        with pytest.raises(MalformedFeedError):
            parse_change(bad)


def test_c4_a_line_that_is_too_long_is_not_kept_with_the_error():
    splitter = LineSplitter(max_line_bytes=1000)
    with pytest.raises(MalformedFeedError):
        splitter.feed(b"x" * 1001)
    assert splitter._parts == []


LONG = {"text": "x" * 3000}


@pytest.mark.parametrize("paged", [True, False])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=40))
def test_b5_a_row_that_is_too_long_is_a_defect_and_the_rest_goes_on(paged: bool, cuts: list[int]):
    rows = [row(1), row(2, doc=LONG), row(3, deleted=True, doc=LONG), row(4)]
    reader: ChangesParser = PageParser(1000) if paged else ContinuousParser(1000)
    body = page(rows, "4-x") if paged else b"\n".join([*rows, closing("4-x")]) + b"\n"
    edges = [0, *sorted({cut % (len(body) + 1) for cut in cuts} | {*range(0, len(body), 500)}), len(body)]
    found = [change for begin, end in pairwise(edges) for change, _ in reader.feed(body[begin:end])]
    assert [change.id for change in found] == ["doc-1", "doc-2", "doc-3", "doc-4"]
    assert [change.deleted for change in found] == [False, False, True, False]
    assert [bool(change.defect) for change in found] == [False, True, False, False]
    assert "longer than 1000 bytes" in found[1].defect
    assert found[1].seq == parse_change(row(2)).seq
    assert reader.end is not None
    assert reader.end.last_seq == "4-x"


def test_b5_only_the_beginning_of_a_row_that_is_too_long_is_kept():
    reader = ContinuousParser(2**21)
    list(reader.feed(row(1, doc={"text": ""})[:-3]))
    for _ in range(100):
        assert list(reader.feed(b"x" * 2**18)) == []
    assert sum(map(len, reader._splitter._parts)) == MAX_HEAD_BYTES
    (found,) = [change.id for change, _ in reader.feed(b'"}}\n')]
    assert found == "doc-1"


@pytest.mark.parametrize("long", [b"x" * 3000, b'{"seq":"' + b"1" * 3000, b'{"id":"' + b"a" * 3000])
def test_b5_a_long_line_without_an_id_or_without_an_end_is_malformed(long: bytes):
    for reader, opening in ((ContinuousParser(1000), b""), (PageParser(1000), PAGE_HEAD)):
        list(reader.feed(opening))
        with pytest.raises(MalformedFeedError, match="longer than 1000 bytes"):
            read(reader, long + b"\n", [len(long)])
    with pytest.raises(MalformedFeedError):
        read(ContinuousParser(1000), b"x" * 1000 * (CUT_FACTOR + 1), [*range(0, 20_000, 1000)])


def test_b5_a_page_on_one_line_may_not_be_cut():
    with pytest.raises(MalformedFeedError, match="longer than 1000 bytes"):
        list(PageParser(1000).feed(b'{"results":[' + b"1" * 1000))


@pytest.mark.parametrize("keys", [("results", "last_seq", "pending"), ("last_seq", "pending", "results")])
def test_c4_a_long_page_on_one_line_is_read_row_by_row(keys: tuple[str, ...]):
    rows = [json.loads(row(n, pad='["}{\\"' * 40)) for n in range(1, 6000)]
    page = {"results": rows, "last_seq": "9-x", "pending": 3}
    line = json.dumps({key: page[key] for key in keys}).encode()
    assert len(line) > 2**20
    parser = PageParser()
    assert [change.id for change, _ in parser.feed(line + b"\n")] == [f"doc-{n}" for n in range(1, 6000)]
    assert (parser.end.seq, parser.end.pending) == (Seq.of("9-x"), 3)
    with pytest.raises(MalformedFeedError):
        list(PageParser().feed(line[:-40] + b"\n"))


DAMAGED = {
    "invalid UTF-8 in the document": row(2, pad="?").replace(b'"?"', b'"\xff"'),
    "a surrogate in bytes": row(2, doc={"a": "?"}).replace(b'"?"', b'"\xed\xa0\x80"'),
    "half of a pair of surrogates": row(2, doc={"a": "?"}).replace(b'"?"', rb'"\ud800"'),
    "NaN": row(2, doc={"a": "?"}).replace(b'"?"', b"NaN"),
    "Infinity": row(2, doc={"a": "?"}).replace(b'"?"', b"-Infinity"),
    "a control character": row(2, doc={"a": "?"}).replace(b'"?"', b'"\x01"'),
    "NaN in the row": row(2, pad="?").replace(b'"?"', b"NaN"),
    "invalid UTF-8 in the id": row(2).replace(b"doc-2", b"doc-2\xff"),
    "half of a pair in the id": row(2).replace(b"doc-2", rb"doc-2\udc00"),
    "NaN as position": row(2).replace(b'"2-tok"', b"NaN"),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("whole_page", [True, False])
def test_b5_a_damaged_row_becomes_a_dead_letter_and_the_rest_goes_on(damage: str, whole_page: bool):
    rows = [row(1), DAMAGED[damage], row(3)]
    parser: ChangesParser = PageParser() if whole_page else ContinuousParser()
    text = page(rows, "3-tok") if whole_page else b"\n".join(rows) + b"\n" + closing("3-tok")
    first, damaged, last = [change for change, _ in parser.feed(text)]
    assert (first.id, last.id, first.defect, last.defect) == ("doc-1", "doc-3", "", "")
    assert damaged.id.startswith("doc-2")
    assert damaged.defect
    assert damaged.raw is not None, "it would be fetched again"
    assert parser.end is not None


def test_b5_a_deletion_needs_no_tombstone():
    change = parse_change(row(2, deleted=True, doc={"a": "?"}).replace(b'"?"', b"NaN"))
    assert (change.id, change.deleted, change.defect) == ("doc-2", True, "")


@pytest.mark.parametrize("text", ["plain", "Ærø 🌍"])
def test_a_row_of_valid_utf_8_is_whole(text: str):
    document = f'{{"t":"{text}"}}'
    change = parse_change(f'{{"seq":"1-x","id":"a","changes":[{{"rev":"1-a"}}],"doc":{document}}}'.encode())
    assert (change.defect, bytes(change.raw or b"")) == ("", document.encode())


def bounded_row(*, seq_bytes: int = 10, revs_bytes: int = 20, document_bytes: int = 10) -> bytes:
    """A row with parts of exactly these sizes as JSON."""
    seq = "9" * (seq_bytes - 2)
    revs = '[{"rev":"1-' + "a" * (revs_bytes - 14) + '"}]'
    return f'{{"seq":"{seq}","id":"a","changes":{revs},"doc":"{"d" * document_bytes}"}}'.encode()


@pytest.mark.parametrize("document_bytes", [10, _LARGE_BYTES])
def test_c4_positions_and_revisions_are_bounded_to_the_last_byte(document_bytes: int):
    parse_change(bounded_row(seq_bytes=MAX_SEQ_BYTES, document_bytes=document_bytes))
    with pytest.raises(MalformedFeedError):
        parse_change(bounded_row(seq_bytes=MAX_SEQ_BYTES + 1, document_bytes=document_bytes))
    parse_change(bounded_row(revs_bytes=MAX_REVS_BYTES, document_bytes=document_bytes))
    with pytest.raises(MalformedFeedError):
        parse_change(bounded_row(revs_bytes=MAX_REVS_BYTES + 1, document_bytes=document_bytes))


def test_c4_an_end_is_not_longer_than_a_position_can_be():
    end = b'{"last_seq":"1-x","pending":0%s}'
    parser = ContinuousParser()
    assert list(parser.feed(end % b"" + b"\n")) == []
    assert parser.end is not None
    with pytest.raises(MalformedFeedError):
        list(ContinuousParser().feed(end % (b" " * _LARGE_BYTES) + b"\n"))


def test_c4_the_bounds_are_64_kib_and_1_mib():
    assert (MAX_SEQ_BYTES, MAX_REVS_BYTES, _LARGE_BYTES) == (65_536, 1_048_576, 1_048_576)


def test_c4_the_position_of_a_page_on_one_line_is_bounded_too():
    head, end = b'{"results":[],"last_seq":"', b'","pending":0}'
    parser = PageParser()
    assert read(parser, head + b"1-x" + end + b"\n") == []
    with pytest.raises(MalformedFeedError):
        read(PageParser(), head + b"9" * MAX_SEQ_BYTES + end + b"\n")

"""Positions of older systems, from samples in their documented formats."""

from __future__ import annotations

import pytest

from daemon.cli.exit_codes import CommandError
from daemon.cli.legacy_checkpoints import find_position

TOKEN = "61-g1AAAACReJzLYWBgYMpgTmHgz8tPSTV0MDQy1zMAQsMckEQiQ1L9____szKYE5lygQLsJubJyebmqdg0"

PROGRESS_CSV = f"""seq,pending,updated_at,source
{TOKEN},0,2024-09-02 14:11:02.1+00,couchdb.example:5984/medic
12-abc,3,2024-09-02 14:11:02.1+00,couchdb.example:5984/medic-sentinel
"""
OLD_PROGRESS_CSV = f"seq,source\n{TOKEN},default-source\n"
PROGRESS_JSON = f'[{{"seq": "{TOKEN}", "source": "couchdb.example/medic"}}]'
DOCUMENT = f"""{{"_id": "pillowtop_corehq.pillows.case.CasePillow.hq1", "_rev": "812-5d", "seq": "{TOKEN}",
 "old_seq": "60-x", "timestamp": "2015-06-01T12:00:00.000000Z"}}"""
DUMPDATA = f"""[{{"model": "pillowtop.djangopillowcheckpoint", "pk": "user-pillow",
 "fields": {{"sequence": "{TOKEN}", "sequence_format": "text", "timestamp": "2016-06-01T12:00:00Z",
 "old_sequence": "0"}}}}]"""
TABLE_CSV = (
    "checkpoint_id,sequence,timestamp,old_sequence,sequence_format\n"
    f"user-pillow,{TOKEN},2016-06-01,0,text\n"
    'kafka-pillow,"{""case,0"": 17}",2016-06-01,0,json\n'
)


@pytest.mark.parametrize(
    ("system", "text", "entry", "position"),
    [
        ("logstash", TOKEN, None, TOKEN),
        ("logstash", f"{TOKEN}\n", None, TOKEN),
        ("logstash", "\ufeff4711", None, 4711),
        ("logstash", '[7, "g1A"]', None, [7, "g1A"]),
        ("couchdb-progress", PROGRESS_CSV, "couchdb.example:5984/medic", TOKEN),
        ("couchdb-progress", PROGRESS_CSV, "couchdb.example:5984/medic-sentinel", "12-abc"),
        ("couchdb-progress", OLD_PROGRESS_CSV, None, TOKEN),
        ("couchdb-progress", PROGRESS_JSON, None, TOKEN),
        ("couchdb-progress", "seq,source\n0,a\n", None, 0),
        ("pillowtop", DOCUMENT, None, TOKEN),
        ("pillowtop", '{"_id": "p", "seq": 4711}', None, 4711),
        ("pillowtop", DUMPDATA, "user-pillow", TOKEN),
        ("pillowtop", TABLE_CSV, "user-pillow", TOKEN),
    ],
)
def test_token_is_found_unchanged(system, text, entry, position):
    assert find_position(system, text, entry) == position


@pytest.mark.parametrize(
    ("system", "text", "entry", "why"),
    [
        ("logstash", "", None, "no position"),
        ("logstash", "1\n2", None, "several lines"),
        ("logstash", "1", "x", "--entry"),
        ("couchdb-progress", PROGRESS_CSV, None, "2 entries.*medic-sentinel.*--entry"),
        ("couchdb-progress", PROGRESS_CSV, "other", "no entry 'other'"),
        ("couchdb-progress", "seq,source\n,a\n", None, "no position"),
        ("couchdb-progress", "[1]", None, "not a list of objects"),
        ("couchdb-progress", "{", None, "not valid JSON"),
        ("couchdb-progress", "", None, "0 entries"),
        ("pillowtop", TABLE_CSV, "kafka-pillow", "Kafka"),
        ("pillowtop", '{"_id": "p"}', None, "no position"),
        ("couchdb-progress", "[" * 100_000, None, "not valid JSON"),
        ("couchdb-progress", "seq\n" + "x" * 200_000, None, "not valid CSV"),
        ("couchdb-progress", '{"seq": {"a": 1}}', None, "not a token"),
        ("couchdb-progress", '{"seq": 1.5}', None, "not a token"),
        ("pillowtop", '{"fields": 7}', None, "no position"),
        ("pillowtop", '{"fields": {"sequence": true}}', None, "not a token"),
    ],
)
def test_file_without_one_position_is_refused(system, text, entry, why):
    with pytest.raises(CommandError, match=why):
        find_position(system, text, entry)

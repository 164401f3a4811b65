"""Multistatus documents of XRootD and other servers, and documents that are refused."""

from __future__ import annotations

import pytest

from publisher.errors import OriginError
from publisher.targets.pelican.propfind import DavEntry, parse_multistatus

XROOTD = b"""<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns1="http://apache.org/dav/props/" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/" xmlns:lp3="LCGDM:">
<D:href>/images/</D:href><D:propstat><D:prop>
<lp1:getcontentlength>4096</lp1:getcontentlength>
<lp1:getlastmodified>Tue, 24 Nov 2026 09:59:52 GMT</lp1:getlastmodified>
<lp1:resourcetype><D:collection/></lp1:resourcetype>
</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
<D:response xmlns:lp1="DAV:"><D:href>/images/x</D:href><D:propstat><D:prop>
<lp1:getcontentlength>5</lp1:getcontentlength>
<lp1:getlastmodified>Tue, 24 Nov 2026 09:59:52 GMT</lp1:getlastmodified>
</D:prop></D:propstat></D:response>
</D:multistatus>"""
OTHERS = b"""<multistatus xmlns="DAV:"><response><href>https://h.example/a%20b</href><propstat><prop><resourcetype/>
</prop></propstat></response></multistatus>"""


def test_what_xrootd_and_others_say_of_files_and_directories() -> None:
    assert parse_multistatus(XROOTD, "h") == [
        DavEntry("/images", is_directory=True, size=4096, modified=1795514392.0),
        DavEntry("/images/x", is_directory=False, size=5, modified=1795514392.0),
    ]
    assert parse_multistatus(OTHERS, "h") == [DavEntry("/a b", is_directory=False, size=0, modified=None)]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<multistatus",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><multistatus xmlns="DAV:"/>',
        XROOTD.replace(b">5<", b">five<"),
        XROOTD.replace(b"Tue, 24 Nov 2026 09:59:52 GMT", b"yesterday"),
    ],
)
def test_a_document_that_is_none_is_an_error(document: bytes) -> None:
    with pytest.raises(OriginError, match=r"^h lists files in a"):
        parse_multistatus(document, "h")

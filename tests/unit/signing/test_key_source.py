from __future__ import annotations

from pathlib import Path

import pytest

from publisher.signing.key_source import ProgramKey, TokenKey, parse_token

KEY = TokenKey("our token", "signing", Path("/usr/lib/softhsm/libsofthsm2.so"))


def test_a_token_is_named_by_a_pkcs11_uri() -> None:
    assert parse_token("pkcs11:token=our%20token;object=signing?module-path=/usr/lib/softhsm/libsofthsm2.so") == KEY
    assert parse_token(str(KEY)) == KEY
    assert str(ProgramKey(Path("/bin/sign"))) == "command:/bin/sign"


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        "pkcs11:token=a;object=b",
        "pkcs11:token=;object=b?module-path=/c",
        "pkcs11:token=a;object=b;pin-value=1234?module-path=/c",
    ],
)
def test_another_uri_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write pkcs11:token=NAME"):
        parse_token(text)

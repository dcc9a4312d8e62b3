"""What templates may call: assets, icons, times, numbers, statuses."""

import gzip
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from portal.db.base import Base
from portal.domain.entitlements import EntitlementState
from portal.domain.standing import LicenseState
from portal.domain.words import duration, feature_name
from portal.web.templating import (
    IMMUTABLE,
    REVALIDATE,
    STATUSES,
    Assets,
    UnknownAsset,
    compact,
    file_size,
    init_templating,
    instant,
    iso,
    paragraphs,
    relative,
    way_back,
)

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def app() -> Flask:
    app = Flask("portal", static_folder=str(ROOT / "static"))
    init_templating(app, now=lambda: NOW, templates=ROOT / "templates", static=ROOT / "static")
    return app


def render(app: Flask, source: str, **context: object) -> str:
    with app.test_request_context():
        return app.jinja_env.from_string(source).render(**context)


class TestAssets:
    def test_address_changes_with_the_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.css").write_text("a{}")
        before = Assets(tmp_path).url("a.css")
        (tmp_path / "a.css").write_text("b{}")
        assert Assets(tmp_path).url("a.css") != before
        assert re.fullmatch(r"/static/a\.css\?v=[0-9a-f]{16}", before)

    def test_only_the_current_hash_is_kept_for_ever(self, tmp_path: Path) -> None:
        (tmp_path / "a.css").write_text("a{}")
        assets = Assets(tmp_path)
        version = assets.url("a.css").partition("=")[2]
        assert assets.cache_control("a.css", version) == IMMUTABLE
        assert assets.cache_control("a.css", "0" * 16) == REVALIDATE
        assert assets.cache_control("a.css", None) == REVALIDATE
        assert assets.cache_control("b.css", None) == REVALIDATE

    def test_a_missing_file_is_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownAsset):
            Assets(tmp_path).url("no.css")


class TestCompression:
    PATH = "/static/css/shell.css"

    def test_text_is_compressed_for_those_who_take_it(self, app: Flask) -> None:
        plain = app.test_client().get(self.PATH, buffered=True)
        packed = app.test_client().get(
            self.PATH, headers={"Accept-Encoding": "br, gzip"}, buffered=True
        )
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.data) == plain.data
        assert len(packed.data) < len(plain.data) / 2
        assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"

    def test_refused_encoding_is_not_used(self, app: Flask) -> None:
        answer = app.test_client().get(
            self.PATH, headers={"Accept-Encoding": "gzip;q=0"}, buffered=True
        )
        assert "Content-Encoding" not in answer.headers

    def test_a_cached_copy_is_confirmed(self, app: Flask) -> None:
        client = app.test_client()
        etag = client.get(self.PATH, headers={"Accept-Encoding": "gzip"}, buffered=True).headers[
            "ETag"
        ]
        answer = client.get(self.PATH, headers={"If-None-Match": etag}, buffered=True)
        assert answer.status_code == 304

    def test_pages_are_left_alone(self, app: Flask) -> None:
        app.add_url_rule("/page", "page", lambda: "x" * 5000)
        answer = app.test_client().get("/page", headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in answer.headers


class TestTimes:
    @pytest.mark.parametrize(
        ("offset_s", "phrase"),
        [
            (0, "now"),
            (-4, "now"),
            (30, "in 30 seconds"),
            (-61, "1 minute ago"),
            (119 * 60, "in 119 minutes"),
            (2 * 3600, "in 2 hours"),
            (-47 * 3600, "47 hours ago"),
            (72 * 3600, "in 3 days"),
            (-400 * 86400, "400 days ago"),
        ],
    )
    def test_relative(self, offset_s: int, phrase: str) -> None:
        assert relative(NOW + timedelta(seconds=offset_s), NOW) == phrase

    def test_shown_in_utc_whatever_the_zone(self) -> None:
        tokyo = datetime(2026, 3, 1, 21, 0, 5, tzinfo=timezone(timedelta(hours=9)))
        assert instant(tokyo) == "1 Mar 2026, 12:00 UTC"
        assert instant(tokyo, seconds=True) == "1 Mar 2026, 12:00:05 UTC"
        assert iso(tokyo) == "2026-03-01T12:00:05Z"

    def test_a_time_without_zone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="zone"):
            iso(datetime(2026, 3, 1))  # noqa: DTZ001

    @pytest.mark.parametrize("form", ["full", "line", "relative"])
    def test_element_carries_the_instant_and_both_readings(self, app: Flask, form: str) -> None:
        html = render(app, "{{ time_element(at, form) }}", at=NOW + timedelta(days=3), form=form)
        assert 'datetime="2026-03-04T12:00:00Z"' in html
        assert "4 Mar 2026, 12:00 UTC" in html
        assert ">in 3 days<" in html

    def test_countdown_of_what_is_over_is_zero(self, app: Flask) -> None:
        html = render(app, "{{ countdown(at) }}", at=NOW - timedelta(days=3))
        assert ">0 seconds<" in html


class TestNumbers:
    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            (72 * 3600, "72 hours"),
            (30 * 86400, "30 days"),
            (7 * 86400, "7 days"),
            (5400, "1 hour 30 minutes"),
            (86400 * 4 + 3600 + 60, "4 days 1 hour"),
            (0, "0 seconds"),
        ],
    )
    def test_duration(self, seconds: int, words: str) -> None:
        assert duration(seconds) == words

    @pytest.mark.parametrize(
        ("value", "short"),
        [(1_000_000, "1M"), (2_500_000, "2.5M"), (412_000, "412k"), (1_234_500, "1,234,500")],
    )
    def test_compact(self, value: int, short: str) -> None:
        assert compact(value) == short

    @given(st.integers(min_value=0, max_value=10**15))
    def test_compact_loses_nothing(self, value: int) -> None:
        short = compact(value).replace(",", "")
        size = {"k": 10**3, "M": 10**6, "B": 10**9}.get(short[-1])
        assert round(float(short[:-1]) * size) == value if size else int(short) == value

    def test_file_size(self) -> None:
        assert file_size(1) == "1 byte"
        assert file_size(2841) == "2,841 bytes"
        assert file_size(48_211) == "48.2 KB"

    def test_feature_name(self) -> None:
        assert feature_name("pii_filtering") == "PII filtering"
        assert feature_name("yet_unnamed") == "yet_unnamed"


class TestStatuses:
    def test_every_stored_state_can_be_shown(self) -> None:
        stored = {
            state
            for table in Base.metadata.tables.values()
            for constraint in table.constraints
            for text in [str(getattr(constraint, "sqltext", ""))]
            if text.startswith("state ")
            for state in re.findall(r"'([a-z-]+)'", text)
        }
        assert {"open", "queued"} <= stored
        stored |= {*LicenseState, *EntitlementState}
        assert stored <= STATUSES.keys()

    @pytest.mark.parametrize("state", STATUSES)
    def test_icon_and_word(self, app: Flask, state: str) -> None:
        html = render(app, "{{ status_tag(state) }}", state=state)
        assert "<svg" in html
        assert STATUSES[state].word in html

    def test_an_unknown_state_is_a_mistake(self, app: Flask) -> None:
        with pytest.raises(KeyError):
            render(app, "{{ status_tag('no-such-state') }}")


class TestTemplates:
    def test_an_undefined_name_is_a_mistake(self, app: Flask) -> None:
        with pytest.raises(UndefinedError):
            render(app, "{{ no_such_name }}")

    @pytest.mark.asvs("1.2.1")
    def test_text_of_a_person_is_inert(self, app: Flask) -> None:
        assert render(app, "{{ text }}", text="<b>") == "&lt;b&gt;"
        assert paragraphs("<b>\n\n<i>\n&") == "<p>&lt;b&gt;</p><p>&lt;i&gt;<br>&amp;</p>"

    def test_an_icon_with_a_label_speaks(self, app: Flask) -> None:
        assert 'aria-hidden="true"' in render(app, "{{ icon('check') }}")
        html = render(app, "{{ icon('check', label) }}", label='"yes"')
        assert 'role="img" aria-label="&#34;yes&#34;"' in html

    def test_every_template_compiles(self, app: Flask) -> None:
        names = app.jinja_env.list_templates(extensions=["html", "txt"])
        assert names
        for name in names:
            app.jinja_env.get_template(name)


class TestWayBack:
    @pytest.mark.asvs("3.7.2")
    @pytest.mark.parametrize(
        ("method", "url", "referrer", "path"),
        [
            ("GET", "http://localhost/plans", "", "/plans"),
            ("POST", "http://localhost/plans", "http://localhost/account", "/account"),
            ("POST", "http://localhost/plans", "http://evil.example/account", None),
            ("POST", "http://localhost/plans", "http://localhost//evil.example/", None),
            ("POST", "http://localhost/plans", "", None),
        ],
    )
    def test_it_stays_on_the_site(
        self, app: Flask, method: str, url: str, referrer: str, path: str | None
    ) -> None:
        with app.test_request_context(url, method=method, headers={"Referer": referrer}):
            assert way_back() == path

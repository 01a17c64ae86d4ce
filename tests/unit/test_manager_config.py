import logging
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from manager_service.app.system import SystemClock, SystemIds
from manager_service.config import (
    InvalidSettingsError,
    LogFormat,
    LogLevel,
    Settings,
    is_loopback,
    parse_span,
    read_defaults,
    set_up_logging,
    show_span,
    verify,
)
from manager_service.domain.checks import is_uuid
from manager_service.domain.fleet import Timing
from manager_service.domain.model import MILLISECOND, SECOND


class TestSpans:
    @pytest.mark.parametrize(
        ("text", "span"),
        [
            ("500ms", 500 * MILLISECOND),
            ("1.5s", 1_500 * MILLISECOND),
            ("5m", 300 * SECOND),
            ("12h", 43_200 * SECOND),
            (" 30d ", 2_592_000 * SECOND),
            ("0s", 0),
        ],
    )
    def test_they_are_read(self, text: str, span: int) -> None:
        assert parse_span(text) == span

    @pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 s", "1w", "1e3s", "٣s"])
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a span"):
            parse_span(text)

    @pytest.mark.parametrize("text", ["500ms", "10s", "5m", "12h", "30d"])
    def test_they_are_shown_as_they_are_written(self, text: str) -> None:
        assert show_span(parse_span(text)) == text

    def test_odd_ones_are_shown_in_seconds(self) -> None:
        assert show_span(1_500_001) == "1.5s"
        assert show_span(0) == "0s"


class TestListen:
    @pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "localhost:7420", "[::1]:1", "unix:/tmp/x"])
    def test_loopback_is_known(self, address: str) -> None:
        assert is_loopback(address)

    @pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:1", "10.0.0.1:1", "localhost.example:1", "db:1"])
    def test_all_else_is_not(self, address: str) -> None:
        assert not is_loopback(address)

    @pytest.mark.parametrize("address", ["", "x", ":1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "::1:1"])
    def test_what_is_no_address_is_refused(self, address: str) -> None:
        with pytest.raises(InvalidSettingsError, match="HOST:PORT"):
            is_loopback(address)


class TestVerify:
    def test_the_defaults_go_together(self) -> None:
        verify(Settings())

    def test_beyond_loopback_needs_a_word(self) -> None:
        with pytest.raises(InvalidSettingsError, match="--insecure"):
            verify(Settings(listen="0.0.0.0:1"))
        verify(Settings(listen="0.0.0.0:1", insecure=True))

    @pytest.mark.parametrize(
        ("timing", "says"),
        [
            (Timing(heartbeat_interval=1), "heartbeat-interval"),
            (Timing(lease_duration=29 * SECOND), "lease-duration is 29s; it must be at least 30s"),
            (Timing(accept_within=19 * SECOND), "accept-within"),
            (Timing(poll_window=0), "poll-window"),
        ],
    )
    def test_spans_that_leases_cannot_live_by_are_refused(self, timing: Timing, says: str) -> None:
        with pytest.raises(InvalidSettingsError, match=says):
            verify(replace(Settings(), timing=timing))

    def test_a_negative_retention_is_refused(self) -> None:
        with pytest.raises(InvalidSettingsError, match="retention"):
            verify(Settings(retention=-1))

    def test_a_negative_wait_is_refused(self) -> None:
        with pytest.raises(InvalidSettingsError, match="store-wait must not be negative; 0s tries once"):
            verify(Settings(store_wait=-1))


class TestReadDefaults:
    def test_keys_are_the_options_names(self, tmp_path: Path) -> None:
        (tmp_path / "m.toml").write_text('log-level = "debug"\npoll_window = "1s"\ninsecure = true\n')

        found = read_defaults(tmp_path / "m.toml", {"log_level", "poll_window", "insecure"})

        assert found == {"log_level": "debug", "poll_window": "1s", "insecure": True}

    @pytest.mark.parametrize(
        ("text", "says"), [("x = ", "not a TOML file"), ("x = 1", "unknown key 'x'"), ("[t]\na = 1", "'t'")]
    )
    def test_what_is_wrong_is_told(self, tmp_path: Path, text: str, says: str) -> None:
        (tmp_path / "m.toml").write_text(text)

        with pytest.raises(ValueError, match=says):
            read_defaults(tmp_path / "m.toml", {"listen"})

    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot be read"):
            read_defaults(tmp_path / "m.toml", {"listen"})


class TestSystem:
    def test_ids_rise(self) -> None:
        ids = SystemIds()
        made = [ids.new_id() for _ in range(100)]

        assert made == sorted(set(made))
        assert all(is_uuid(text) and text[14] == "7" for text in made)
        assert 0 <= ids.random() < 1

    def test_the_steady_clock_never_falls(self) -> None:
        clock = SystemClock()

        assert clock.monotonic() <= clock.monotonic()
        assert clock.wall() > 1_700_000_000 * SECOND


@pytest.mark.parametrize("form", LogFormat)
def test_logging_is_set_up(form: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    before, handlers = structlog.get_config(), list(logging.getLogger().handlers)
    try:
        set_up_logging(LogLevel.INFO, form)
        log = structlog.get_logger()
        log.debug("too low")
        log.error("went wrong", parent_job_id="p1", exc_info=ValueError("told"))
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers[:] = handlers

    out, err = capsys.readouterr()
    assert out == ""
    assert "went wrong" in err
    assert "p1" in err
    assert "ValueError: told" in err
    assert "too low" not in err

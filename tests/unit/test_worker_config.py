from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from worker_service import config
from worker_service.domain.errors import ConfigurationError
from worker_service.targets import parse_target


class TestFile:
    def test_keys_may_be_written_with_hyphens(self, tmp_path: Path) -> None:
        path = tmp_path / "w.toml"
        path.write_text('drain-grace = 3\nlabels = {zone = "a"}\n[[targets]]\nurl = "a.db"\nmax_parallel = 2\n')
        content = config.read_file(path)
        [target] = config.file_targets(content)

        assert content["drain_grace"] == 3
        assert config.file_labels(content) == {"zone": "a"}
        assert (target.url, target.max_parallel, target.name) == ("a.db", 2, None)

    @pytest.mark.parametrize("text", ["slotss = 3", "zzz = 1", "a = [", "\xff"])
    def test_what_means_nothing_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "w.toml"
        path.write_bytes(text.encode("latin-1"))

        with pytest.raises(ConfigurationError):
            config.read_file(path)

    def test_a_misspelt_key_gets_a_hint(self, tmp_path: Path) -> None:
        path = tmp_path / "w.toml"
        path.write_text("slotss = 3")

        with pytest.raises(ConfigurationError, match="did you mean 'slots'"):
            config.read_file(path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="No such file"):
            config.read_file(tmp_path / "none.toml")

    @pytest.mark.parametrize(
        "targets",
        [
            {},
            ["a.db"],
            [{"name": "a"}],
            [{"url": 3}],
            [{"url": "a", "max_parallel": 0}],
            [{"url": "a", "max_parallel": True}],
            [{"url": "a", "labels": ["x"]}],
            [{"url": "a", "label": {}}],
            [{"url": "a", "only_if": "dead_ratio > 1"}],
            [{"url": "a", "only_if": [1]}],
            [{"url": "a", "only_if": ["x"] * 101}],
        ],
    )
    def test_a_target_of_another_shape_is_refused(self, targets: Any) -> None:
        with pytest.raises(ConfigurationError):
            config.file_targets({"targets": targets})


class TestThresholds:
    def test_they_are_for_all_for_an_operation_or_for_objects(self) -> None:
        texts = ["dead_ratio > 0.1", "vacuum: rows > 1", "/public.*: rows > 2", "vacuum/public.a*: rows > 3"]

        (target,) = config.file_targets({"targets": [{"url": "a.db", "only_if": texts}]})

        assert [(one.operation, one.object, one.condition) for one in target.only_if] == [
            ("", "", "dead_ratio > 0.1"),
            ("vacuum", "", "rows > 1"),
            ("", "public.*", "rows > 2"),
            ("vacuum", "public.a*", "rows > 3"),
        ]

    @pytest.mark.parametrize(
        "text", ["", "vacuum:", ": rows > 1", "rows >", "vacuum@orders: rows", "rows > 1" + " + 1" * 400]
    )
    def test_what_is_none_is_refused_with_how_to_write_one(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="write a condition such as"):
            config.file_targets({"targets": [{"url": "a.db", "only_if": [text]}]})


class TestMaxParallel:
    def test_that_of_the_worker_is_for_targets_without_their_own(self) -> None:
        content = {"targets": [{"url": "a.db"}, {"url": "b.db", "max_parallel": 2}]}

        targets = config.Sources(content=content, max_parallel=4).targets()

        assert [target.max_parallel for target in targets] == [4, 2]

    def test_it_is_for_those_of_the_command_line_too(self) -> None:
        sources = config.Sources(command_line=(parse_target("a.db"),), max_parallel=4)

        assert [target.max_parallel for target in sources.targets()] == [4]
        assert [target.max_parallel for target in sources.again().targets()] == [4]


class TestEnvironment:
    def test_targets_are_separated_by_spaces_or_commas(self) -> None:
        orders = config.environment_targets("a=/x.db, b=/y.db\n/z.db")

        assert [(order.name, order.url) for order in orders] == [("a", "/x.db"), ("b", "/y.db"), (None, "/z.db")]

    def test_labels_too(self) -> None:
        assert config.environment_labels("a=1,b=2 c=") == {"a": "1", "b": "2", "c": ""}

    @pytest.mark.parametrize("text", ["a", "=b"])
    def test_a_label_of_another_form_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="KEY=VALUE"):
            config.parse_labels([text])


class TestSources:
    def test_the_command_line_comes_before_the_environment_before_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "w.toml").write_text('[[targets]]\nurl = "file.db"\n')
        by_file = config.Sources(file=tmp_path / "w.toml").again()
        by_line = replace(by_file, command_line=(parse_target("line.db"),))

        assert [order.url for order in by_file.targets()] == ["file.db"]
        monkeypatch.setenv("OVERHAUL_TARGETS", "environment.db")
        assert [order.url for order in by_file.targets()] == ["environment.db"]
        assert [order.url for order in by_line.targets()] == ["line.db"]

    def test_the_file_is_read_again_and_other_options_that_differ_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "w.toml").write_text('slots = 2\nname = "w"\n[[targets]]\nurl = "a.db"\n')
        before = config.Sources(file=tmp_path / "w.toml").again()
        (tmp_path / "w.toml").write_text('slots = 3\nlog-level = "debug"\nname = "w"\n[[targets]]\nurl = "b.db"\n')
        after = before.again()

        assert [order.url for order in after.targets()] == ["b.db"]
        assert after.differing(before) == ["log_level", "slots"]

    def test_without_a_file_there_is_nothing_to_read(self) -> None:
        assert config.Sources(command_line=(parse_target("a.db"),)).again().targets()


def test_two_workers_of_one_host_differ() -> None:
    assert config.default_name() != config.default_name()

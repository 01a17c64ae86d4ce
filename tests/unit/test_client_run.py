"""What `overhaul run` asks for where it was not told."""

import pytest

from manager_service.client.options import Scope
from manager_service.client.run import RunRequest


class TestScope:
    @pytest.mark.parametrize(
        "targets",
        [
            ["postgresql://me@host/app"],
            ["shop=mariadb://host/app"],
            ["app.db", "mysql://host/app"],
        ],
    )
    def test_with_a_server_it_is_what_is_customary(self, targets: list[str]) -> None:
        request = RunRequest(targets=targets)

        assert request.used_scope is Scope.CUSTOMARY
        assert request.inspects

    @pytest.mark.parametrize(
        "targets", [["app.db"], ["sqlite:///app.db", "shop=./a=b.db"], ["file:///srv/app.db", "plain"]]
    )
    def test_of_files_it_is_the_database_and_nothing_is_inspected(self, targets: list[str]) -> None:
        request = RunRequest(targets=targets)

        assert request.used_scope is Scope.DATABASE
        assert not request.inspects

    def test_that_was_given_counts(self) -> None:
        assert RunRequest(targets=["postgresql://h/d"], scope=Scope.DATABASE).used_scope is Scope.DATABASE

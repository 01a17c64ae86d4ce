from importlib.metadata import EntryPoint

import pytest

from worker_service.domain.errors import InvalidTargetError
from worker_service.domain.target import Target
from worker_service.operations.registry import GROUP, EngineRegistry
from worker_service.operations.sqlite import SqliteEngine


@pytest.fixture
def registry() -> EngineRegistry:
    return EngineRegistry({"sqlite": SqliteEngine()}, {"oracle": "ModuleNotFoundError: No module named 'cx'"})


class TestLoad:
    def test_the_installed_engines_are_found(self) -> None:
        registry = EngineRegistry.load()

        assert "sqlite" in registry.names
        assert isinstance(registry.by_name("sqlite"), SqliteEngine)

    def test_one_that_does_not_load_keeps_no_other_back(self) -> None:
        points = [
            EntryPoint("broken", "no.such.module:Engine", GROUP),
            EntryPoint("sqlite", "worker_service.operations.sqlite:SqliteEngine", GROUP),
        ]

        registry = EngineRegistry.load(points)

        assert registry.names == ("sqlite",)
        with pytest.raises(InvalidTargetError, match="does not load: ModuleNotFoundError"):
            registry.by_name("broken")


class TestByName:
    def test_an_unknown_engine_is_refused_with_what_is_installed(self, registry: EngineRegistry) -> None:
        with pytest.raises(
            InvalidTargetError, match=r"did you mean 'sqlite'.*Installed: sqlite.*Not loading: oracle"
        ):
            registry.by_name("sqlit")

    def test_an_empty_registry_says_so(self) -> None:
        with pytest.raises(InvalidTargetError, match="Installed: none"):
            EngineRegistry({}).by_name("zzz")


class TestForUrl:
    @pytest.mark.parametrize(
        "url",
        ["app.db", "/srv/app.db", "sqlite:///app.db", "SQLite:////srv/app.db", "sqlite+apsw:///a", "a:b//c.db"],
    )
    def test_a_file_belongs_to_sqlite(self, registry: EngineRegistry, url: str) -> None:
        assert registry.for_url(url).name == "sqlite"

    def test_an_unknown_scheme_is_refused(self, registry: EngineRegistry) -> None:
        with pytest.raises(InvalidTargetError, match="No engine answers to URLs of postgresql://"):
            registry.for_url("postgresql+psycopg://host/app")

    def test_the_scheme_of_a_broken_engine_tells_why(self, registry: EngineRegistry) -> None:
        with pytest.raises(InvalidTargetError, match="does not load"):
            registry.for_url("oracle://host/app")


class TestForTarget:
    def test_the_named_engine_comes_first(self, registry: EngineRegistry) -> None:
        assert registry.for_target(Target(name="app", url="app.db", engine="sqlite")).name == "sqlite"

    def test_without_a_name_the_url_decides(self, registry: EngineRegistry) -> None:
        assert registry.for_target(Target(name="app", url="app.db", engine="")).name == "sqlite"

import pytest

from tests.worker_doubles.fake_engine import FakeEngine
from worker_service.catalogue import Served
from worker_service.domain.errors import ConfigurationError, InvalidTargetError, TargetUnavailableError
from worker_service.domain.ports import Engine
from worker_service.domain.secrets import Redactor, passwords_of
from worker_service.domain.target import Target
from worker_service.targets import TargetOrder, parse_target, refuse_doubles, refuse_passwords, resolve_targets


class Engines:
    def by_name(self, name: str) -> Engine:
        if name != "fake":
            raise InvalidTargetError(f"There is no engine {name!r}.")
        return FakeEngine()

    def for_url(self, url: str) -> Engine:
        return FakeEngine()


class CountingEngine(FakeEngine):
    """Counts how often it checks."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: list[str] = []

    def check(self, target: Target) -> None:
        self.checked.append(target.name)


class OneEngine:
    def __init__(self) -> None:
        self.engine = CountingEngine()

    def by_name(self, name: str) -> Engine:
        return self.engine

    def for_url(self, url: str) -> Engine:
        return self.engine


def names(*texts: str) -> list[str]:
    return [one.target.name for one in resolve_targets([parse_target(text) for text in texts], Engines())]


class TestParse:
    @pytest.mark.parametrize(
        ("text", "name", "url"),
        [
            ("app.db", None, "app.db"),
            ("app=/data/app.db", "app", "/data/app.db"),
            ("my_app-2=x=y.db", "my_app-2", "x=y.db"),
            ("./a=b.db", None, "./a=b.db"),
            ("sqlite:////data/a=b.db", None, "sqlite:////data/a=b.db"),
            ("2024=x.db", None, "2024=x.db"),
        ],
    )
    def test_a_name_comes_before_an_equals_sign(self, text: str, name: str | None, url: str) -> None:
        order = parse_target(text)

        assert (order.name, order.url) == (name, url)


class TestNames:
    def test_a_path_is_named_by_its_stem_and_a_server_by_its_database(self) -> None:
        found = names("/data/app.db", "sqlite:////data/other.sqlite", "postgresql://h/prod.eu", "postgresql://h")

        assert found == ["app", "other", "prod.eu", "h"]

    def test_a_name_that_is_taken_gets_a_number(self) -> None:
        assert names("a.db", "x/a.db", "a-2=y.db", "z/a.db") == ["a", "a-3", "a-2", "a-4"]

    def test_a_path_without_a_stem_has_a_name_all_the_same(self) -> None:
        assert names("/") == ["target"]

    @pytest.mark.parametrize(
        "orders",
        [
            [],
            [TargetOrder(name="a", url="x"), TargetOrder(name="a", url="y")],
            [TargetOrder(name="a\nb", url="x")],
            [TargetOrder(name="a", url="")],
            [TargetOrder(name="a", url="x", engine="oracle")],
            [TargetOrder(url="http://[broken")],
            [TargetOrder(name="a", url="missing")],
        ],
    )
    def test_what_cannot_be_served_is_refused(self, orders: list[TargetOrder]) -> None:
        with pytest.raises((ConfigurationError, InvalidTargetError)):
            resolve_targets(orders, Engines())


class TestThoseThatAreServedAlready:
    def test_only_what_changed_is_checked_again(self) -> None:
        engines = OneEngine()
        served = resolve_targets([parse_target("a=/a.db"), parse_target("b=/b.db")], engines)
        engines.engine.checked.clear()

        orders = [parse_target("a=/a.db"), parse_target("b=/other.db"), parse_target("c=/c.db")]
        found = resolve_targets(orders, engines, served=served)

        assert engines.engine.checked == ["b", "c"]
        assert found[0] == served[0]


class TestDoubles:
    def served(self, *identities: str | None) -> tuple[Served, ...]:
        orders = [TargetOrder(url=f"fake://u:s3cret@h/{n}", identity=one) for n, one in enumerate(identities)]
        return resolve_targets(orders, Engines())

    def test_two_names_of_one_database_are_refused_without_their_passwords(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            refuse_doubles(self.served("one", "other", "one"))

        text = "The targets '0' (fake://u:***@h/0) and '2' (fake://u:***@h/2) are one database: name it once."
        assert str(caught.value) == text

    def test_databases_that_differ_are_not(self) -> None:
        refuse_doubles(self.served("one", "other", None, None))

    def test_one_that_cannot_be_read_is_told(self) -> None:
        served = self.served("one", "one")
        for one in served:
            assert isinstance(one.engine, FakeEngine)
            one.engine.unavailable = True

        with pytest.raises(TargetUnavailableError, match="The target '0' cannot be read: "):
            refuse_doubles(served)


class TestPasswords:
    @pytest.mark.parametrize("url", ["mysql://u:p%40ss@h/d", "postgresql://h/d?password=p%40ss"])
    def test_they_are_found_refused_on_the_command_line_and_masked(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"password .* leave it out of the URL") as caught:
            refuse_passwords([parse_target(f"app={url}")])

        assert "--config" not in str(caught.value), "`overhaul run` has no such option"
        assert "p@ss" in passwords_of(url)
        assert Redactor([url])("login with p@ss failed") == "login with *** failed"

    @pytest.mark.parametrize("url", ["a.db", "postgresql://u@h/d", "http://[broken"])
    def test_without_one_nothing_is_refused(self, url: str) -> None:
        refuse_passwords([TargetOrder(url=url)])

    def test_those_of_targets_that_come_later_are_masked_too(self) -> None:
        redact = Redactor(["mysql://u:first@h/d"])
        redact.learn(["mysql://u:second@h/d"])

        assert redact("first second third") == "*** *** third"

    def test_a_target_does_not_show_its_url(self) -> None:
        order = TargetOrder(name="a", url="mysql://u:hidden@h/d")
        [served] = resolve_targets([order], Engines())

        assert "hidden" not in repr(order) + repr(served)

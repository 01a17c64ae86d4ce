"""What the README and the quickstart say of databases in servers works as it is written."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.documents import commands, text_of
from tests.acceptance.three_databases import ThreeDatabases

_QUICKSTART = "docs/quickstart.md"
_BIN = Path(sys.executable).parent
_PATIENCE = 60


def extras(document: str) -> set[str]:
    """Return what a document's command for the install names in brackets."""
    [command] = [found for found in commands(document, "pip") if "[" in found]
    return set(command.partition("[")[2].partition("]")[0].split(","))


def on(three: ThreeDatabases, text: str) -> str:
    """Return a text with the tests' databases in the place of those that it names."""
    text = re.sub(r"postgresql://\w+@[\w.]+/\w+", three.shop_url, text)
    return re.sub(r"mariadb://\w+@[\w.]+/\w+", three.crm_url, text)


def call(three: ThreeDatabases, command: str, *passwords: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Have a shell run a command in the databases' folder, where PostgreSQL's password is typed in."""
    environment = three.environment(*passwords) | {"PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"} | more
    return subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=three.file.parent,
        env=environment,
        input=f"{three.passwords['PGPASSWORD']}\n",
        check=False,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
    )


class TestReadme:
    def test_its_install_brings_the_drivers_of_both_kinds_of_server(self) -> None:
        known = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
        drivers = {re.split(r"[\[>]", needed)[0] for extra in extras("README.md") for needed in known[extra]}

        assert drivers == {"psycopg", "pymysql"}
        assert extras(_QUICKSTART) == extras("README.md")

    def test_its_command_maintains_a_database_of_each_kind(self, three: ThreeDatabases) -> None:
        [command] = re.findall(r"`(overhaul run app\.db postgresql:[^`]*)`", text_of("README.md"))
        before = three.read()

        done = call(three, on(three, command), "PGPASSWORD", "MYSQL_PWD")

        after = three.read()
        assert done.returncode == 0, done.stderr
        assert after.index_file != before.index_file
        assert after.space != before.space
        assert after.file_bytes < before.file_bytes


class TestPasswords:
    """A dry run has to be let in as any other run."""

    def test_the_environment_serves_both_servers(self, three: ThreeDatabases) -> None:
        [command] = [one for one in commands(_QUICKSTART, "overhaul run") if "mariadb:" in one]

        planned = call(three, f"{on(three, command)} --dry-run", "PGPASSWORD", "MYSQL_PWD")

        assert planned.returncode == 0, planned.stderr
        assert "OPTIMIZE TABLE" in planned.stdout
        assert "REINDEX INDEX CONCURRENTLY" in planned.stdout

    def test_one_that_is_typed_in_serves(self, three: ThreeDatabases) -> None:
        [lines] = re.findall(r"^    (read .*\n    overhaul run .*)$", text_of(_QUICKSTART), flags=re.MULTILINE)

        planned = call(three, f"{on(three, lines)} --dry-run")

        assert planned.returncode == 0, planned.stderr
        assert "REINDEX INDEX CONCURRENTLY" in planned.stdout

    def test_files_and_a_service_serve(self, three: ThreeDatabases, tmp_path: Path) -> None:
        page = text_of(_QUICKSTART)
        [by_file] = re.findall(r"`'(mariadb://\S+)'`", page)
        [by_service] = re.findall(r"`'(postgresql:\S+)'`", page)
        [form] = re.findall(r"lines `(HOST:\S+)`", page)
        place = urlsplit(three.shop_url)
        named = {"HOST": place.hostname, "PORT": place.port, "DATABASE": place.path[1:], "USER": place.username}
        line = re.sub("[A-Z]+", lambda word: str((named | {"PASSWORD": "{}"})[word.group()]), form)
        passwords = written(tmp_path / "passwords", line.format(three.passwords["PGPASSWORD"]))
        service = (
            f"[shop]\nhost={place.hostname}\nport={place.port}\ndbname={place.path[1:]}\nuser={place.username}\n"
        )
        services = written(tmp_path / "services", service)
        option_file = written(tmp_path / "crm.cnf", f"[client]\npassword={three.passwords['MYSQL_PWD']}\n")
        by_file = on(three, by_file).replace("/etc/overhaul/crm.cnf", str(option_file))

        planned = call(
            three,
            f"overhaul run '{by_file}' '{by_service}' --dry-run",
            PGPASSFILE=str(passwords),
            PGSERVICEFILE=str(services),
        )

        assert planned.returncode == 0, planned.stderr
        assert "OPTIMIZE TABLE" in planned.stdout
        assert "REINDEX INDEX CONCURRENTLY" in planned.stdout

    def test_one_on_the_command_line_is_refused_with_the_other_ways(self, three: ThreeDatabases) -> None:
        refused = call(three, f"overhaul run {three.given(three.crm_url, 'MYSQL_PWD')}")

        assert refused.returncode == 2
        assert "MYSQL_PWD or an option file" in refused.stderr
        assert three.leaks(refused.stdout, refused.stderr) == []


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path

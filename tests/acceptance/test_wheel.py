"""The wheel works without the repository, an install for development with nothing else."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_works_installed_elsewhere(tmp_path: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(_ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = wheels.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    database = tmp_path / "app.db"
    subprocess.run(
        [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(database)!r}).execute('CREATE TABLE t(a)')"],
        check=True,
    )

    environment = os.environ | {"PYTHONPATH": str(site), "OVERHAUL_TEST_SITE": str(site)}
    where = subprocess.run(
        [
            sys.executable,
            "-c",
            "import manager_service, worker_service, overhaul.v1.job_pb2 as p; print(p.__file__)",
        ],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    run = subprocess.run(
        [str(site / "bin" / "overhaul"), "run", str(database)],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )

    assert where.stdout.startswith(str(site))
    assert run.returncode == 0, run.stderr
    assert "completed" in run.stdout


def test_an_install_for_development_has_no_stubs_of_its_own(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.run(
        [sys.executable, "-c", "import overhaul.v1.job_pb2 as p; print(p.__file__)"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )

    assert where.stdout.strip() == str(_ROOT / "protos/overhaul/v1/job_pb2.py")

"""Finding the tables of a database, how large they are, and what may be done to each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

from worker_service.domain.inspection import Coverage, InspectedObject, Inspection, InspectionResult, Scope
from worker_service.domain.lock import Lock
from worker_service.domain.outcome import Measures, Outcome, Result, Verdict
from worker_service.operations.mariadb.books import SOMETIMES_MEASURED, added_up, read_measures
from worker_service.operations.mariadb.covering import covered, optimize_rebuilds
from worker_service.operations.mariadb.options import Options
from worker_service.operations.mariadb.procedure import Procedure
from worker_service.operations.mariadb.session import Session
from worker_service.operations.mariadb.state import hidden_in, read_files
from worker_service.operations.mariadb.tables import Table, read_tables
from worker_service.operations.wording import count, disk_need, listed

DESCRIPTION = "Find the tables, how large they are, and what is to be done to each."
_NO_TABLE = "there is no table in the database that the role may see"
_HIDDEN = "the role may not see it: grant it SELECT"
_SHOWN = 50
_READABLE = 32
_TWICE = "; vacuum is the same rebuild, so one of the two is enough"
_COPIED = ("data_bytes", "index_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An operation that is to be planned: how it is carried out, and with which options."""

    procedure: Procedure
    options: Options

    def preview(self, table: Table, measures: Measures) -> str:
        """Tell the statement for one table, whom its locks keep out, and the disk that it takes meanwhile."""
        copied = sum(measures.get(name, 0.0) for name in _COPIED) if self.procedure.copies else 0.0
        told = (self.procedure.keeps_out(table, self.options), disk_need(copied))
        return f"{self.procedure.statement(table, self.options)} -- {'; '.join(filter(None, told))}"


def inspect(session: Session, key: str, inspection: Inspection, wanted: Sequence[Wanted]) -> Result:
    """Find what is looked for; only the catalogue is read, and no table opened that the server would repair by it.

    Args:
        session: what asks.
        key: the database's lock key.
        inspection: what is looked for.
        wanted: its operations, as they are carried out.

    Raises:
        OperationCancelledError: it was stopped.
        ServerError: the catalogue cannot be read.
    """
    tables = read_tables(session)
    files = read_files(session)
    hidden = hidden_in(files, tables)
    if hidden:
        session.log("warning", f"The role may not see {count(len(hidden), 'table')}: {listed(hidden)}.")
    look = _Look(key=key, inspection=inspection, wanted=wanted, rebuilds=optimize_rebuilds(session))
    match inspection.scope:
        case Scope.DATABASE:
            measures = read_measures(session, tables, files)
            objects: tuple[InspectedObject, ...] = (look.database(tables, measures),)
            return _found(
                "found the database", tables, InspectionResult(objects=objects, measures=SOMETIMES_MEASURED)
            )
        case Scope.TABLE | Scope.INDEX:  # an index of InnoDB is made anew with its table, and by itself never
            meant = [table for table in tables if _is_meant(session, table.name, inspection)]
            measures = read_measures(session, meant, files)
            objects = (
                *_by_size(look.table(table, measures.get(table.name, {})) for table in meant),
                *(_hidden(name, wanted) for name in hidden if _is_meant(session, name, inspection)),
            )
            return _found(_told(objects), tables, _locked(objects, key))
        case _:
            raise AssertionError(inspection.scope)  # the engine has decided


def _is_meant(session: Session, name: str, inspection: Inspection) -> bool:
    return inspection.selection.takes(f"{session.server.database}.{name}", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """Words what was found; ``rebuilds`` tells whether OPTIMIZE of InnoDB is a rebuild here."""

    key: str
    inspection: Inspection
    wanted: Sequence[Wanted]
    rebuilds: bool

    def database(self, tables: Sequence[Table], measures: Mapping[str, Measures]) -> InspectedObject:
        numbers = added_up(sum(not table.left_alone({}) for table in tables), measures.values())
        return InspectedObject(
            operations=tuple(one.procedure.name for one in self.wanted),
            size_bytes=int(numbers.get("size_bytes", 0)),
            measures=numbers,
            previews=tuple(self._walk(one, tables, measures) for one in self.wanted)
            if self.inspection.preview
            else (),
            left_out="" if tables else _NO_TABLE,
        )

    def table(self, table: Table, measures: Measures) -> InspectedObject:
        reasons = {one.procedure.name: table.left_alone(one.procedure.engines_left_alone) for one in self.wanted}
        done = [one for one in self.wanted if not reasons[one.procedure.name]]
        left_out = "; ".join(dict.fromkeys(reasons.values())) if not done else ""
        return InspectedObject(
            object=table.name,
            operations=tuple(one.procedure.name for one in (self.wanted if left_out else done)),
            size_bytes=int(measures.get("size_bytes", 0)),
            measures=measures,
            locks=(Lock(key=table_key(self.key, table.name)),),
            previews=tuple(one.preview(table, measures) for one in done) if self.inspection.preview else (),
            left_out=left_out,
            covered=self._covered(table, done),
        )

    def _walk(self, wanted: Wanted, tables: Sequence[Table], measures: Mapping[str, Measures]) -> str:
        """Tell the statements of the first tables, and how many more there are."""
        done = [table for table in tables if not table.left_alone(wanted.procedure.engines_left_alone)]
        lines = [
            wanted.preview(table, measures.get(table.name, {})) + self._note(wanted, table)
            for table in islice(done, _SHOWN)
        ]
        more = len(done) - len(lines)
        return "\n".join([*lines, f"-- and {count(more, 'statement')} more"] if more else lines)

    def _note(self, wanted: Wanted, table: Table) -> str:
        # Not every job of whole databases is inspected, so that none of them leaves a rebuild out.
        twice = any(one.operation == wanted.procedure.name for one in self._covered(table, self.wanted))
        return _TWICE if twice else ""

    def _covered(self, table: Table, wanted: Iterable[Wanted]) -> tuple[Coverage, ...]:
        options = {one.procedure.name: one.options for one in wanted}
        return covered(table, options.get("vacuum"), options.get("reindex"), rebuilds=self.rebuilds)


def _hidden(name: str, wanted: Sequence[Wanted]) -> InspectedObject:
    return InspectedObject(object=name, operations=tuple(one.procedure.name for one in wanted), left_out=_HIDDEN)


def _by_size(objects: Iterable[InspectedObject]) -> list[InspectedObject]:
    return sorted(objects, key=lambda found: -found.size_bytes)


def _locked(objects: tuple[InspectedObject, ...], key: str) -> InspectionResult:
    return InspectionResult(objects=objects, locks=(Lock(key=key, exclusive=False),), measures=SOMETIMES_MEASURED)


def table_key(key: str, table: str) -> str:
    """The lock key of one table; a long name is shortened to a length that no other has."""
    digest = sha256(table.encode()).hexdigest()[:_READABLE]
    short = table if len(table) <= _READABLE else f"{table[:8]}~{digest}"
    return f"{key}/{short}"


def _told(objects: Sequence[InspectedObject]) -> str:
    left_out = sum(bool(found.left_out) for found in objects)
    told = f"found {count(len(objects) - left_out, 'table')}"
    return told + (f", and {left_out} more that are left out" if left_out else "")


def _found(told: str, tables: Sequence[Table], found: InspectionResult) -> Result:
    return Result(
        outcome=Outcome.COMPLETED,
        verdict=Verdict.EFFECTIVE,
        reason=f"{told}.",
        after={"tables": float(sum(not table.left_alone({}) for table in tables))},
        inspection=found,
    )

"""Finding the tables and indexes of a file, how large they are, and what is to be done to each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import apsw

from worker_service.domain.inspection import InspectedObject, Inspection, InspectionResult, Scope
from worker_service.domain.outcome import Measures
from worker_service.operations.sqlite.analyze import limit_statements
from worker_service.operations.sqlite.contents import (
    LEFT_OUT,
    SOMETIMES_MEASURED,
    Catalogue,
    of_file,
    of_index,
    of_table,
    read_catalogue,
)
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.measures import read_measures, snapshot
from worker_service.operations.sqlite.options import Options
from worker_service.operations.sqlite.procedure import Procedure
from worker_service.operations.sqlite.space import vacuum_needs
from worker_service.operations.sqlite.sweep import statements_for
from worker_service.operations.wording import disk_need

DESCRIPTION = "Find the tables and indexes, how large they are, and what is to be done to each."
_ONLY_READ = frozenset({"integrity_check", "quick_check", "foreign_key_check"})
_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An operation that is to be planned: how it is carried out, its options, and to what at the narrowest."""

    procedure: Procedure
    options: Options
    narrowest: Scope

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.procedure.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The objects that were found, the measures of the file, and why others are not known; empty if they are."""

    objects: tuple[InspectedObject, ...]
    measures: Measures
    not_known: str

    def result(self) -> InspectionResult:
        """Return the objects as they are answered."""
        return InspectionResult(objects=self.objects, measures=SOMETIMES_MEASURED)


def inspect(
    connection: apsw.Connection, location: Location, inspection: Inspection, wanted: Sequence[Wanted]
) -> Found:
    """Find what is looked for; ``connection`` only reads.

    What is done to the whole file alone, such as VACUUM, is told of the object ``None`` at every scope.

    Raises:
        apsw.Error: the file cannot be read, or the look was interrupted.
    """
    with snapshot(connection):
        measures = read_measures(connection, location)
        catalogue = read_catalogue(connection, measures)
        auto_vacuum = float(str(connection.pragma("auto_vacuum")))
    needs = vacuum_needs(measures, location, str(connection.pragma("journal_mode")))
    look = _Look(
        connection=connection,
        inspection=inspection,
        catalogue=catalogue,
        disk={"vacuum": sum(need.number for need in needs)},
    )
    by_scope = _by_scope(inspection.scope, wanted)
    found = (
        *look.database(by_scope[Scope.DATABASE], of_file(measures, catalogue, auto_vacuum)),
        *_by_size(look.tables(by_scope[Scope.TABLE])),
        *_by_size(look.indexes(by_scope[Scope.INDEX])),
    )
    return Found(objects=found, measures=measures, not_known=catalogue.pages_not_known)


def _by_scope(scope: Scope, wanted: Iterable[Wanted]) -> Mapping[Scope, Sequence[Wanted]]:
    """Group the operations by what they are done to: their narrowest, but nothing narrower than is asked for."""
    width = {each: place for place, each in enumerate(Scope)}
    groups: dict[Scope, list[Wanted]] = {each: [] for each in Scope}
    for one in wanted:
        groups[min(one.narrowest, scope, key=width.__getitem__)].append(one)
    return groups


def _by_size(objects: Iterable[InspectedObject]) -> list[InspectedObject]:
    return sorted(objects, key=lambda found: (-found.size_bytes, found.object or ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """Words what was found; the locks of each object are those that are offered, for SQLite has one writer.

    ``disk`` are the bytes that an operation takes while it runs, of those that take as much again as there is.
    """

    connection: apsw.Connection
    inspection: Inspection
    catalogue: Catalogue
    disk: Mapping[str, float]

    def database(self, wanted: Sequence[Wanted], measures: Measures) -> Iterable[InspectedObject]:
        if wanted or self.inspection.scope is Scope.DATABASE:
            yield InspectedObject(
                operations=_names(wanted),
                size_bytes=int(measures["size_bytes"]),
                measures=measures,
                previews=self._previews(wanted, None),
            )

    def tables(self, wanted: Sequence[Wanted]) -> Iterable[InspectedObject]:
        if not wanted and self.inspection.scope is not Scope.TABLE:
            return
        for name, kind in self.catalogue.tables.items():
            if self._is_meant(name):
                yield self._table(name, kind, wanted)

    def indexes(self, wanted: Sequence[Wanted]) -> Iterable[InspectedObject]:
        if self.inspection.scope is not Scope.INDEX:
            return
        for name in (name for names in self.catalogue.indexes.values() for name in names):
            if self._is_meant(name):
                yield self._object(name, wanted, of_index(self.catalogue, name))

    def _table(self, name: str, kind: str, wanted: Sequence[Wanted]) -> InspectedObject:
        if reason := LEFT_OUT.get(kind):
            return InspectedObject(object=name, operations=_names(wanted), left_out=reason)
        indexes = self.catalogue.indexes.get(name, ())
        done = [one for one in wanted if indexes or one.narrowest is not Scope.INDEX]
        measures = of_table(self.catalogue, name)
        if wanted and not done:
            return replace(self._object(name, (), measures), operations=_names(wanted), left_out="it has no index")
        return self._object(name, done, measures)

    def _object(self, name: str, wanted: Sequence[Wanted], measures: Measures) -> InspectedObject:
        return InspectedObject(
            object=name,
            operations=_names(wanted),
            size_bytes=int(measures.get("size_bytes", 0)),
            measures=measures,
            previews=self._previews(wanted, name),
        )

    def _is_meant(self, name: str) -> bool:
        return self.inspection.selection.takes(f"main.{name}", name)

    def _previews(self, wanted: Sequence[Wanted], name: str | None) -> tuple[str, ...]:
        if not self.inspection.preview:
            return ()
        return tuple(self._preview(one, name) for one in wanted)

    def _preview(self, wanted: Wanted, name: str | None) -> str:
        statements = self._statements(wanted, name)
        shown = "\n".join(statements[:_SHOWN])
        more = len(statements) - _SHOWN
        suffix = f"\n-- and {more} more" if more > 0 else ""
        told = (self._keeps_out(wanted.name), disk_need(self.disk.get(wanted.name, 0.0)))
        return f"{shown}{suffix} -- {'; '.join(filter(None, told))}" if statements else "-- nothing to do"

    def _statements(self, wanted: Wanted, name: str | None) -> tuple[str, ...]:
        if name is None:
            return wanted.procedure.plan(self.connection, wanted.options)
        if wanted.narrowest is Scope.INDEX:
            return tuple(statements_for(self.catalogue.indexes.get(name, (name,)), "REINDEX").values())
        return (*limit_statements(wanted.options), *statements_for([name], "ANALYZE").values())

    def _keeps_out(self, name: str) -> str:
        logged = self.connection.pragma("journal_mode") == "wal"
        if name in _ONLY_READ:
            return "nobody waits" if logged else "writers wait"
        return "writers wait" if logged else "writers wait, and readers while it is committed"


def _names(wanted: Iterable[Wanted]) -> tuple[str, ...]:
    return tuple(one.name for one in wanted)

"""Verifier of `import codes`: the table, and that each row of the sources is a row or a reject."""

from __future__ import annotations

from collections import Counter

from codectok.errors import VerificationError
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.output.verify_rejects import verified_rejects
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.tokenize.table_parts import SourceName, names_in_rejects
from codectok.pipelines.tokenize.verify import TableVerifier
from codectok.sources.kinds import CONTAINERS
from codectok.sources.rejects import is_within
from codectok.tokens.table import TableMetadata


class ImportVerifier(TableVerifier):
    """Checks an imported token table against plan and records."""

    def _compare_metadata(self, metadata: TableMetadata, where: str, unit: Unit) -> None:
        if metadata.codec_fingerprint != self.plan.header.options.get("codec"):
            raise VerificationError(f"{where} holds codes of another codec than the plan.")
        if metadata.unit_hash != unit_hash(self.plan.header, unit):
            raise VerificationError(f"{where} was made from other sources or options than the plan.")

    def _check_coverage(self, unit: Unit, record: UnitRecord, rows: Counter[SourceName]) -> None:
        """Raise an error if a planned source is neither row nor reject, or if a row comes from another source."""
        rejects = verified_rejects(self.storage, record)
        found = names_in_rejects(rows.elements()) + Counter((reject.dataset, reject.source) for reject in rejects)
        of_unit = f"the unit {unit.number} of {self.storage.url}"
        if record.total.inputs != found.total():
            raise VerificationError(
                f"In {of_unit} {record.total.inputs} rows were read, but {found.total()} are rows or rejects."
            )
        repeated = next((name for name, count in sorted(found.items()) if count > 1), None)
        if repeated is not None:
            raise VerificationError(f"The source {repeated[1]} of {of_unit} is there several times.")
        sources = (*unit.sources, *unit.crashed)
        containers = {(s.dataset, s.name) for s in sources if s.kind in CONTAINERS}
        # The range of a file that lacks its first byte holds no row.
        files = names_in_rejects(
            (s.dataset, s.name) for s in sources if s.kind not in CONTAINERS and not s.first_byte
        ).keys()
        missing = sorted(files - found.keys())
        if missing:
            raise VerificationError(f"The source {missing[0][1]} of {of_unit} is neither a row nor a reject.")
        for dataset, name in sorted(found.keys() - files - names_in_rejects(containers).keys()):
            if not any(dataset == other and is_within(name, container) for other, container in containers):
                raise VerificationError(f"The source {name} of a row of {of_unit} is not in the plan.")

"""What we keep: versioned FHIR rows and photos at rest."""

from adapter.records.ids import new_id
from adapter.records.rows import (
    Stored,
    create,
    create_all,
    delete,
    find,
    find_by_identifier,
    find_by_index,
    find_where,
    get,
    history,
    update_resource,
)
from adapter.records.search_parameters import TABLES, Resource

__all__ = [
    "TABLES",
    "Resource",
    "Stored",
    "create",
    "create_all",
    "delete",
    "find",
    "find_by_identifier",
    "find_by_index",
    "find_where",
    "get",
    "history",
    "new_id",
    "update_resource",
]

"""What we keep: versioned FHIR rows and photos at rest."""

from adapter.records.extraction import Resource
from adapter.records.ids import new_id
from adapter.records.rows import (
    Change,
    New,
    Stored,
    change,
    create,
    create_all,
    delete,
    find,
    find_all,
    find_by_identifier,
    find_by_index,
    find_selected,
    find_where,
    get,
    history,
    insert_all,
    selection,
    update_resource,
    write_all,
)
from adapter.records.search_parameters import TABLES

__all__ = [
    "TABLES",
    "Change",
    "New",
    "Resource",
    "Stored",
    "change",
    "create",
    "create_all",
    "delete",
    "find",
    "find_all",
    "find_by_identifier",
    "find_by_index",
    "find_selected",
    "find_where",
    "get",
    "history",
    "insert_all",
    "new_id",
    "selection",
    "update_resource",
    "write_all",
]

"""All tables, as SQLAlchemy Core. Migrations under ``db/migrations`` are generated from these.

FHIR resources: one table per type holds the current version (JSON text plus the typed columns we search by),
``resource_history`` holds superseded versions, ``search_index`` the multi-valued elements. The JSON is the truth;
every other column is derived from it by ``records.search_parameters`` in the same statement.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    literal_column,
    text,
)
from sqlalchemy.types import TypeEngine

from adapter.db.packed import Packed

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, also on SQLite, which stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _id(name: str = "id", **options: Any) -> Column[Any]:
    return Column(name, String(64), **options)


def _bytewise(length: int) -> TypeEngine[str]:
    """Text that sorts by code point on every database, so that a search by prefix is a range of its index."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def _code(name: str, **options: Any) -> Column[Any]:
    return Column(name, _bytewise(128), **options)


def _text(name: str, length: int = 200) -> Column[Any]:
    return Column(name, _bytewise(length))


def _resource(resource_type: str, *columns: Column[Any] | Index, body: type[TypeEngine[str]] = Text) -> Table:
    return Table(
        resource_type.lower(),
        metadata,
        _id(primary_key=True),
        Column("version_id", Integer, nullable=False),
        Column("last_updated", Instant, nullable=False),
        Column("deleted", Boolean, nullable=False, default=False),
        Column("body", body, nullable=False),
        *columns,
        Index(f"ix_{resource_type.lower()}_last_updated", "last_updated", "id"),
    )


MERGED = text("replaced_by IS NOT NULL")  # few are; counted among all, the planner would rather read every patient
patient = _resource(
    "Patient",
    _text("family"),
    _text("given"),
    _text("birthdate", 10),
    _code("gender"),
    Column("active", Boolean),
    _id("replaced_by"),
    Index("ix_patient_family_birthdate", "family", "birthdate", "id"),
    Index("ix_patient_birthdate", "birthdate"),
    Index("ix_patient_replaced_by", "replaced_by", sqlite_where=MERGED, postgresql_where=MERGED),
)
encounter = _resource(
    "Encounter",
    _id("patient"),
    Column("date", Instant),
    Column("date_end", Instant),
    _code("status"),
    _code("class"),
    Index("ix_encounter_patient_date", "patient", "date", "id"),
    Index("ix_encounter_date", "date", "id"),
)
WAITING = text("identity_state <> 'bound|https://dermbridge.org/fhir/CodeSystem/identity-state'")
"""Photos whose patient is not settled: the condition of a partial index, to be repeated as it is by who reads it."""

ONLY_OPEN = literal_column("'N'", String)
"""The level of what everybody may see, as written in the condition of a partial index: a parameter would not match."""
OPEN = text("confidentiality = 'N'")

media = _resource(
    "Media",
    _id("patient"),
    _id("encounter"),
    Column("created", Instant),
    Column("created_end", Instant),
    Column("issued", Instant),
    _code("status"),
    _code("type"),
    _code("modality"),
    _code("view"),
    _code("site"),
    _code("identity_state"),
    Column("confidentiality", String(1)),  # N, R or V: who sees it, see access.policy
    _code("derivation"),  # what picture of others it is; None for a photograph
    _id("lesion"),
    _text("operator"),
    _text("device"),
    _text("based_on"),
    Index("ix_media_patient_created", "patient", "created", "id"),
    Index("ix_media_patient_site_created", "patient", "site", "created", "id"),  # what to compare a photo with
    Index("ix_media_encounter_created", "encounter", "created", "id"),
    Index("ix_media_lesion_created", "lesion", "created", "id"),
    Index("ix_media_created", "created", "id"),
    Index("ix_media_created_end", "created_end", "created"),
    Index("ix_media_site_created", "site", "created", "id"),
    Index("ix_media_view_created", "view", "created", "id"),
    Index("ix_media_modality_created", "modality", "created", "id"),
    Index("ix_media_status_created", "status", "created", "id"),
    Index("ix_media_identity_state_created", "identity_state", "created", "id"),
    Index("ix_media_operator_created", "operator", "created", "id"),
    Index("ix_media_operator_level_created", "operator", "confidentiality", "created", "id"),
    Index("ix_media_open_created", "created", "id", sqlite_where=OPEN, postgresql_where=OPEN),
    # Its level, always the same, makes SQLite prefer it to ix_media_site_created: of two indexes it counts the columns.
    Index(
        "ix_media_open_site_created",
        "site",
        "confidentiality",
        "created",
        "id",
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    ),
    Index("ix_media_waiting", "identity_state", "id", sqlite_where=WAITING, postgresql_where=WAITING),
)
consent = _resource(
    "Consent",
    _id("patient"),
    Column("date", Instant),
    Column("date_end", Instant),
    _code("status"),
    _code("scope"),
    Index("ix_consent_patient_date", "patient", "date", "id"),
    Index("ix_consent_date", "date", "id"),
    Index("ix_consent_date_end", "date_end", "date"),
)
body_structure = _resource(
    "BodyStructure",
    _id("patient"),
    _code("location"),
    _code("morphology"),
    Index("ix_bodystructure_patient", "patient", "id"),
)
document_reference = _resource(
    "DocumentReference",
    _id("patient"),
    _id("encounter"),
    Column("date", Instant),
    _code("status"),
    _code("type"),
    Index("ix_documentreference_patient_date", "patient", "date", "id"),
    Index("ix_documentreference_date", "date", "id"),
)
observation = _resource(
    "Observation",
    _id("patient"),
    _id("encounter"),
    Column("date", Instant),
    Column("date_end", Instant),
    _code("status"),
    _code("code"),
    Column("confidentiality", String(1)),  # as of a photo: what was found on one is as sensitive as the photo
    _text("performer"),
    Index("ix_observation_patient_date", "patient", "date", "id"),
    Index("ix_observation_date", "date", "id"),
    Index("ix_observation_performer_date", "performer", "date", "id"),
    Index("ix_observation_performer_level_date", "performer", "confidentiality", "date", "id"),
    Index("ix_observation_open_date", "date", "id", sqlite_where=OPEN, postgresql_where=OPEN),
)
provenance = _resource(
    "Provenance",
    Column("recorded", Instant),
    _code("activity"),
    Index("ix_provenance_recorded", "recorded", "id"),
)
audit_event = _resource(
    "AuditEvent",
    Column("date", Instant),
    _id("patient"),
    _code("type"),
    _code("subtype"),
    _code("action"),
    _code("outcome"),
    _text("agent"),
    Index("ix_auditevent_patient_date", "patient", "date", "id"),
    Index("ix_auditevent_agent_date", "agent", "date", "id"),
    Index("ix_auditevent_date", "date", "id"),
    body=Packed,  # the most frequent rows there are
)
practitioner = _resource("Practitioner", _text("family"), Index("ix_practitioner_family", "family", "id"))
organization = _resource("Organization", _text("name"), Index("ix_organization_name", "name", "id"))
device = _resource("Device", _id("patient"), Index("ix_device_patient", "patient", "id"))

resource_history = Table(
    "resource_history",
    metadata,
    Column("resource_type", String(64), primary_key=True),
    _id(primary_key=True),
    Column("version_id", Integer, primary_key=True),
    Column("last_updated", Instant, nullable=False),
    Column("deleted", Boolean, nullable=False, default=False),
    Column("body", Text, nullable=False),
)
search_index = Table(  # multi-valued elements: tokens as "code|system", references as "Type/id"
    "search_index",
    metadata,
    Column("resource_type", String(64), primary_key=True),
    _id("resource_id", primary_key=True),
    Column("param", String(64), primary_key=True),
    Column("value", _bytewise(400), primary_key=True),
    Index("ix_search_index_value", "resource_type", "param", "value", "resource_id"),
    sqlite_with_rowid=False,
)

# --- bytes and keys -------------------------------------------------------------------------------------------------

patient_key = Table(
    "patient_key",
    metadata,
    _id(primary_key=True),
    _id("patient", index=True),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
)
blob = Table(
    "blob",
    metadata,
    _id(primary_key=True),
    _id("patient_key_id", nullable=False, index=True),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("content_type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("created_at", Instant, nullable=False),
)
binary = Table(  # a FHIR Binary: some bytes of a blob, with the right to them decided by security_context
    "binary",
    metadata,
    _id(primary_key=True),
    _id("blob_id", nullable=False, index=True),
    Column("content_type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("clean_view", Text),  # None: the whole blob
    Column("security_context", String(128), nullable=False),
    Column("rendition", String(32)),  # display, thumbnail, …; None: the clean copy itself
    Column("created_at", Instant, nullable=False),
    Index("ix_binary_context_rendition", "security_context", "rendition"),
)

comparison = Table(  # what was found between two photos; its pictures are Binaries of the context "Comparison/<id>"
    "comparison",
    metadata,
    _id(primary_key=True),
    _id("left_media", nullable=False),
    _id("right_media", nullable=False, index=True),
    Column("engine", String(64), nullable=False),  # its version, and the landmarks it was given
    Column("result", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_comparison_pair", "left_media", "right_media", "engine", unique=True),
)

landmarks = Table(  # pairs of points that somebody marked in two photos, by which they are aligned until removed
    "landmarks",
    metadata,
    _id(primary_key=True),
    _id("left_media", nullable=False),
    _id("right_media", nullable=False),
    Column("points", Text, nullable=False),  # [[[x, y], [x, y]], …] of left and right, at full resolution
    Column("placed_by", String(200), nullable=False),
    Column("placed_by_display", String(200), nullable=False),
    Column("placed_at", Instant, nullable=False),
    Column("removed_by", String(200)),
    Column("removed_at", Instant),
    Index("ix_landmarks_pair", "left_media", "right_media", "removed_at"),
)

# --- what happened and what must follow -----------------------------------------------------------------------------

capture = Table(  # the id is also that of its Media
    "capture",
    metadata,
    _id(primary_key=True),
    Column("idempotency_key", String(200), nullable=False, unique=True),
    Column("fingerprint", String(64), nullable=False, index=True),  # of content and time
    Column("request", String(64), nullable=False),  # the same with the patient as the sender named them
    _id("blob_id", nullable=False, index=True),
    Column("source", String(32), nullable=False),
    Column("consent", Text, nullable=False),  # {"decision", "because"} as decided at capture
    Column("reason", Text),  # why it is held
    Column("received_at", Instant, nullable=False),
)
work = Table(
    "work",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("destination", String(64), nullable=False, default=""),
    Column("idempotency_key", String(200), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease_token", String(36)),
    Column("lease_until", Instant),
    Column("reason", Text),
    Column("remedy", Text),
    Column("payload", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index("ix_work_ready", "state", "kind", "destination", "due_at", "id"),
    Index("ix_work_lease", "state", "lease_until"),
    Index("ix_work_destination", "destination", "state", "id"),
    sqlite_autoincrement=True,
)
work_key = Table(  # what a work row must be done in order with; rows vanish when the work is finished
    "work_key",
    metadata,
    Column("order_key", String(200), primary_key=True),
    Column("work_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, index=True),
)
delivery = Table(
    "delivery",
    metadata,
    _id(primary_key=True),
    _id("media_id", nullable=False),
    Column("media_version", Integer, nullable=False),
    _id("patient"),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("remedy", Text),
    Column("receipt", Text),
    Column("evidence", Text),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("accepted_at", Instant),
    Column("confirmed_at", Instant),
    Column("take_backs", Integer, nullable=False, default=0),  # sent after one, it is another parcel
    Index("ix_delivery_media", "media_id", "destination", "media_version", unique=True),
    Index("ix_delivery_state", "destination", "state", "id"),  # ids rise with created_at
    Index("ix_delivery_patient", "patient", "id"),
    Index("ix_delivery_accepted", "destination", "accepted_at"),
)
delivery_attempt = Table(
    "delivery_attempt",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _id("delivery_id", nullable=False, index=True),
    Column("action", String(16), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", Text),
)
# One row for each destination that had outages since it last answered (adapter/delivery/circuit.py).
circuit = Table(
    "circuit",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("open_until", Instant),
    Column("reason", Text),
    Column("began_at", Instant),  # of the first of these outages
    Column("held", Text),  # why a person stopped everything to this destination, while it is stopped
    Column("updated_at", Instant, nullable=False),
)
allowance = Table(  # what was sent to a destination lately (adapter/delivery/allowance.py); a few rows for each
    "allowance",
    metadata,
    Column("destination", String(128), primary_key=True),
    Column("span", Integer, primary_key=True, autoincrement=False),  # seconds
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("used", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
)
patient_answer = Table(  # what an EHR said when it was asked whose photo it is; kept until the photo is bound
    "patient_answer",
    metadata,
    _id("media_id", primary_key=True),
    Column("destination", String(64), primary_key=True),
    Column("asked_at", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("candidates", Text, nullable=False),  # JSON: what `identity.ehr_answers` makes of them
)
adt_message = Table(
    "adt_message",
    metadata,
    _id(primary_key=True),
    Column("sender", String(200), nullable=False),
    Column("control_id", String(200), nullable=False),
    Column("trigger_event", String(16), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("ack", LargeBinary, nullable=False),
    Column("application_ack", LargeBinary),  # what MSH-16 asked for, written when the message is applied
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("remedy", Text),
    Column("patient", Text),  # identifiers as sent, for the queue page
    Column("received_at", Instant, nullable=False),
    Column("applied_at", Instant),
    Index("ix_adt_message_control", "sender", "control_id", unique=True),
    Index("ix_adt_message_state", "state", "received_at"),
)
identity_change = Table(  # the ledger of merges and moves: whose records were changed, and by which message
    "identity_change",
    metadata,
    _id(primary_key=True),
    Column("kind", String(32), nullable=False),
    _id("source", nullable=False, index=True),
    _id("target", index=True),
    _id("adt_message_id"),
    Column("detail", Text),  # merge: {"identifiers" given to the target, "active" of the source before}
    Column("changed_at", Instant, nullable=False),
    Column("undone_at", Instant),
)
identity_change_item = Table(  # every element changed, as JSON: what undoing needs, and who may look it up by record
    "identity_change_item",
    metadata,
    _id("resource_id", primary_key=True),
    Column("path", String(200), primary_key=True),  # JSON pointer
    _id("change_id", primary_key=True, index=True),
    Column("resource_type", String(64), nullable=False),
    Column("was", Text),
    Column("now", Text),
)

# --- people and machines --------------------------------------------------------------------------------------------

session = Table(
    "session",
    metadata,
    Column("id", String(64), primary_key=True),  # SHA-256 of the cookie
    Column("actor", Text, nullable=False),
    Column("actor_id", String(200), nullable=False, index=True),  # whose it is, for who ends it from elsewhere
    Column("csrf", String(64), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("ehr_grant", LargeBinary),  # sealed: what the EHR's token response lets us ask for again
    Column("style", Text),  # custom properties (JSON) that the EHR around us looks like (smart_style_url)
    Column("glass_of", String(64), index=True),  # of a phone: the session under whose broken glass it was handed over
)
launch = Table(
    "launch",
    metadata,
    Column("state", String(64), primary_key=True),  # SHA-256 of the OAuth state
    Column("browser", String(64), nullable=False),  # SHA-256 of the cookie that must come back with it
    Column("request", Text, nullable=False),
    Column("created_at", Instant, nullable=False, index=True),
)
handoff = Table(  # a link that lets a phone take photos for one patient, once
    "handoff",
    metadata,
    Column("id", String(64), primary_key=True),  # SHA-256 of the secret in the link
    Column("actor", Text, nullable=False),  # what the phone's session may do
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("used_at", Instant),
    Column("glass_of", String(64), index=True),  # the session that made it under broken glass
)
access_token = Table(
    "access_token",
    metadata,
    _id(primary_key=True),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("client_id", String(200)),  # who asked /auth/token for it; None: issued by hand
    Column("grant_id", String(36), index=True),  # the app_grant by which it acts for a person; None: a machine's own
    Column("scope", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, index=True),
    Column("revoked_at", Instant),
)
app_grant = Table(  # a person let an app act for them: from the authorization code to the last refresh token
    "app_grant",
    metadata,
    _id(primary_key=True),
    Column("client_id", String(200), nullable=False),
    Column("actor", Text, nullable=False),  # the person, confined to the patient of the launch
    Column("actor_id", String(200), nullable=False, index=True),  # whose it is, for who ends it from elsewhere
    Column("session_id", String(64), nullable=False, index=True),  # where it was given; ends with it unless offline
    Column("is_offline", Boolean, nullable=False),
    Column("scope", Text, nullable=False),
    Column("request", Text, nullable=False),  # redirect_uri, code_challenge and nonce that the code must come back to
    Column("code_sha256", String(64), nullable=False, unique=True),
    Column("code_used_at", Instant),
    Column("refresh_sha256", String(64)),  # of the one refresh token in force
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("ended_at", Instant),
)
id_token_key = Table(  # what id_tokens are signed with
    "id_token_key",
    metadata,
    Column("id", String(64), primary_key=True),  # kid: RFC 7638 thumbprint
    Column("wrapped_key", LargeBinary, nullable=False),  # opens the next
    Column("sealed", LargeBinary, nullable=False),  # the RSA private key
    Column("created_at", Instant, nullable=False),
)
used_assertion = Table(  # a client assertion works once (SMART backend services): kept until it has expired anyway
    "used_assertion",
    metadata,
    Column("id", String(64), primary_key=True),  # SHA-256 of client id and jti
    Column("expires_at", Instant, nullable=False, index=True),
)
attempts = Table(  # how often somebody tried to get in lately, by what is tried and from where
    "attempts",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("since", Instant, nullable=False, index=True),
    Column("tries", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("locked_until", Instant),
)

# --- batch ----------------------------------------------------------------------------------------------------------

TO_CONFIRM = text("state = 'to-confirm'")
job = Table(
    "job",
    metadata,
    _id(primary_key=True),
    Column("operation", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    _text("actor_id"),
    _id("patient"),
    Column("parameters", Text, nullable=False),
    Column("state", String(16), nullable=False),  # preview, to-confirm, running, finished, undone
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index("ix_job_actor", "actor_id", "id"),
    Index("ix_job_to_confirm", "id", sqlite_where=TO_CONFIRM, postgresql_where=TO_CONFIRM),
)
job_item = Table(
    "job_item",
    metadata,
    _id("job_id", primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("target", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("result", Text),
    Column("before", Text),  # what undo puts back
    Index("ix_job_item_state", "job_id", "state", "position"),
)
import_run = Table(
    "import_run",
    metadata,
    _id(primary_key=True),
    Column("folder", Text, nullable=False),
    _text("actor_display"),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),  # None: under way, or cut off
)
import_file = Table(
    "import_file",
    metadata,
    _id("run_id", primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", Text),
    _id("capture_id"),
    Index("ix_import_file_verdict", "run_id", "verdict", "position"),
)

# --- the audit log as proof (docs/audit.md) --------------------------------------------------------------------------

audit_tail = Table(  # committed events that no signed head covers yet; written in the transaction of the event
    "audit_tail",
    metadata,
    _id("event_id", primary_key=True),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)
audit_leaf = Table(  # the order of the log: what a Merkle tree and a hash chain were built over
    "audit_leaf",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),  # from 0
    _id("event_id", nullable=False, unique=True),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("chain_hash", LargeBinary(32), nullable=False),
)
audit_node = Table(  # hashes over 2**level leaves, from 2**8 on: a proof needs a few of them instead of every leaf
    "audit_node",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
)
audit_head = Table(
    "audit_head",
    metadata,
    Column("tree_size", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("root_hash", LargeBinary(32), nullable=False),
    Column("chain_hash", LargeBinary(32), nullable=False),
    Column("signed_at", Instant, nullable=False),
    _id("key_id", nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
audit_key = Table(
    "audit_key",
    metadata,
    _id(primary_key=True),  # SHA-256 of the public key
    Column("public_key", LargeBinary(32), nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
)
audit_feed = Table(  # how far each audit repository has been told
    "audit_feed",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("next_seq", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("told_at", Instant),
)

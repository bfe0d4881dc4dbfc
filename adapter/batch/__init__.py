"""Many photos at once: one job model with progress, per-item results, resume and undo; exports and drive import."""

from adapter.batch.jobs import (
    confirm_job,
    drop_preview,
    job_status,
    jobs_of,
    prepare_job,
    run_job,
    start_job,
    tally,
    to_confirm,
    undo_job,
)

__all__ = [
    "confirm_job",
    "drop_preview",
    "job_status",
    "jobs_of",
    "prepare_job",
    "run_job",
    "start_job",
    "tally",
    "to_confirm",
    "undo_job",
]

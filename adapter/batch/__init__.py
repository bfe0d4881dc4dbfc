"""Many photos at once: one job model with progress, per-item results, resume and undo; exports and drive import."""

from adapter.batch.jobs import job_status, run_job, start_job, undo_job

__all__ = ["job_status", "run_job", "start_job", "undo_job"]

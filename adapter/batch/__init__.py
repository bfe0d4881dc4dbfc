"""Many photos at once: one job model with progress, per-item results, resume and undo; exports and drive import."""

from adapter.batch.jobs import drop_preview, job_status, jobs_of, prepare_job, run_job, start_job, tally, undo_job

__all__ = ["drop_preview", "job_status", "jobs_of", "prepare_job", "run_job", "start_job", "tally", "undo_job"]

"""`-m`: runs several studies one after the other; a failed study does not stop the next ones."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

from ablations.config.multirun import Job

_FIRST_OF_SIGNALS = 128  # higher exit statuses stop all studies: an interrupt, a broken pipe


def run_jobs(jobs: Sequence[Job], run: Callable[[Job], int]) -> int:
    """Runs jobs in their order, and prints which of them failed.

    Args:
        jobs: the studies.
        run: runs a study, and returns its exit status.

    Returns:
        The status of all jobs if it is the same, otherwise 1; the status of a signal is returned at once.
    """
    statuses: list[int] = []
    for number, job in enumerate(jobs, 1):
        print(f"\nStudy {number} of {len(jobs)}: {job.study} ({' '.join(job.own)})", flush=True)
        try:
            statuses.append(run(job))
        except Exception:  # a defect; the other studies are run
            traceback.print_exc()
            statuses.append(1)
        if statuses[-1] >= _FIRST_OF_SIGNALS:
            return statuses[-1]
    failed = [f"{job.study} (exit status {status})" for job, status in zip(jobs, statuses, strict=True) if status]
    if failed:
        print(f"\nFailed: {len(failed)} of {len(jobs)} studies: {', '.join(failed)}", file=sys.stderr)
    return statuses[0] if len(set(statuses)) == 1 else 1

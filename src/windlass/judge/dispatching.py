"""The judge's jobs, given to the dispatch."""

from __future__ import annotations

from windlass.dispatch import Dispatch, Job, Task
from windlass.errors import JobNotFound
from windlass.judge.jobs import JobSpec


class Jobs:
    """What `jobs.Dispatch` asks for, on the dispatch of this installation."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def submit(self, spec: JobSpec, /) -> str:
        job = Job(
            owner=spec.submission_id,
            generation=spec.generation,
            problem_id=spec.problem_id,
            language=spec.language,
            checker=spec.checker,
            interactor=spec.interactor,
            tasks=tuple(
                Task(task.task_id, task.case_count, task.memory_limit, task.time_limit) for task in spec.tasks
            ),
        )
        return await self._dispatch.submit(job, dedup=spec.dedup, priority=spec.priority, asked=spec.labels)

    async def supersede(self, job_id: str, /) -> None:
        await self._dispatch.supersede(job_id)

    async def over(self, job_id: str, /) -> bool:
        try:
            return (await self._dispatch.views.job(job_id)).over
        except JobNotFound:
            return True

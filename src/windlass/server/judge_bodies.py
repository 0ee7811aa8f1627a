"""The judge over plain HTTP: the shapes of bodies and answers, and how `/openapi.json` tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from windlass.clock import rfc3339
from windlass.judge.languages import LANGUAGES
from windlass.judge.problem import MAX_ID, Problem, ProblemMeta, ProblemTask
from windlass.judge.submission import Submission, SubmissionSummary
from windlass.judge.submissions import Accepted

Label = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$(?!\n)")  # as ECMAScript knows it too
]
Labels = Annotated[list[Label], msgspec.Meta(max_length=16)]


class SubmissionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A program to judge."""

    problem_id: Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
    language: Annotated[int, msgspec.Meta(ge=0, le=1000, description="0 C11, 1 C++17, 2 Python 3.")]
    source: Annotated[str, msgspec.Meta(description="The program's text.")]
    priority: Annotated[int, msgspec.Meta(ge=0, le=9, description="9 is judged first.")] = 0
    labels: Annotated[Labels, msgspec.Meta(description="A runner has to offer all of them.")] = []


class ProblemSummary(msgspec.Struct, kw_only=True):
    """A problem in a list."""

    problem_id: int
    title: str
    max_score: float
    version: int
    updated_at: str


class ProblemInfo(ProblemSummary, kw_only=True):
    """All of a problem but its test data."""

    statement: str
    checker: str
    interactor: str
    tasks: Sequence[ProblemTask]
    checksum: str
    """SHA-256 of the test data's archive, in hexadecimal."""
    testdata_size: int
    """Bytes of the archive."""
    created_at: str


class ProblemPage(msgspec.Struct):
    problems: list[ProblemSummary]
    next: int | None
    """Ask again with after=next; null: that was all."""


class Checksum(msgspec.Struct):
    checksum: str


class SubmissionPage(msgspec.Struct):
    submissions: list[SubmissionSummary]
    next: str | None


class Rejudged(msgspec.Struct):
    submissions: int
    """How many are judged again."""


TYPES = (
    SubmissionBody,
    ProblemMeta,
    ProblemInfo,
    ProblemPage,
    Checksum,
    Accepted,
    Submission,
    SubmissionPage,
    Rejudged,
)


def summary_of(problem: Problem) -> ProblemSummary:
    return ProblemSummary(**_summary(problem))


def info_of(problem: Problem) -> ProblemInfo:
    meta = problem.meta
    return ProblemInfo(
        **_summary(problem),
        statement=meta.statement,
        checker=meta.checker,
        interactor=meta.interactor,
        tasks=meta.tasks,
        checksum=problem.testdata,
        testdata_size=problem.testdata_size,
        created_at=rfc3339(problem.created_at).decode(),
    )


def _summary(problem: Problem) -> dict[str, Any]:
    return {
        "problem_id": problem.id,
        "title": problem.meta.title,
        "max_score": sum(task.score for task in problem.meta.tasks),
        "version": problem.version,
        "updated_at": rfc3339(problem.updated_at).decode(),
    }


# --- the description ----------------------------------------------------------------------------------


def answer(text: str, kind: type) -> dict[str, Any]:
    """An answer of one of TYPES, for FastAPI's `responses`."""
    return {"description": text, "content": {"application/json": {"schema": _ref(kind)}}}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


_TASK = {"score": 100, "case_count": 2, "time_limit": 1000, "memory_limit": 65536}
_BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}

PROBLEM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["meta", "testdata"],
                    "properties": {"meta": _ref(ProblemMeta), "testdata": _BINARY},
                },
                "encoding": {
                    "meta": {"contentType": "application/json"},
                    "testdata": {"contentType": "application/zip"},
                },
            },
            "application/json": {
                "schema": _ref(ProblemMeta),
                "examples": {
                    "keep the test data": {"value": {"title": "A+B", "tasks": [_TASK]}},
                    "subtasks": {
                        "value": {
                            "title": "A+B",
                            "statement": "Print the sum of two numbers.",
                            "checker": "tokens",
                            "tasks": [_TASK | {"scoring": "partial"}],
                        }
                    },
                },
            },
        },
    }
}

NEW_PROBLEM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": PROBLEM_BODY["requestBody"]["content"]["multipart/form-data"],
        },
    }
}

SUBMISSION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _ref(SubmissionBody),
                "examples": {
                    "python": {
                        "value": {
                            "problem_id": 1,
                            "language": 2,
                            "source": "print(sum(map(int, input().split())))",
                        }
                    }
                },
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["problem_id", "language", "source"],
                    "properties": {
                        "problem_id": {"type": "integer", "minimum": 1, "maximum": MAX_ID},
                        "language": {"type": "integer", "enum": sorted(LANGUAGES)},
                        "source": _BINARY,
                        "priority": {"type": "integer", "minimum": 0, "maximum": 9},
                        "labels": {"type": "string", "description": "With commas between them."},
                    },
                }
            },
        },
    }
}

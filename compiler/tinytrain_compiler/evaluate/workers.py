"""A study's episodes spread over processes, each with its own learners."""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from ..errors import TinyTrainError
from .study import EpisodeResult, Study, Task


@dataclass(frozen=True)
class _Failure:
    """One of our errors on its way between processes: not all of them can be pickled."""

    message: str
    exit_code: int


_study: Study | None = None  # of this worker process


def run_in_processes(study: Study, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, EpisodeResult]]:
    """Results as they come, in any order. The first error ends all workers after the task they are at."""
    # spawn: a fork would copy the locks of the parent's threads (progress bar, onnxruntime) as they are held.
    pool = ProcessPoolExecutor(min(workers, len(tasks)), get_context("spawn"), _start, (study,))
    try:
        waiting = {pool.submit(_run, task): task for task in tasks}
        for future in as_completed(waiting):
            result = future.result()
            if isinstance(result, _Failure):
                error = TinyTrainError(result.message)
                error.exit_code = result.exit_code
                raise error
            yield waiting[future], result
    except BrokenProcessPool as error:
        raise TinyTrainError("a worker process died, perhaps for lack of memory; try fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(study: Study) -> None:
    global _study
    _study = study
    atexit.register(study.close)
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))  # Ctrl-C: no traceback from each worker


def _run(task: Task) -> EpisodeResult | _Failure:
    assert _study is not None
    try:
        return _study.run(*task)
    except TinyTrainError as error:
        return _Failure(str(error), error.exit_code)
    except SystemExit:  # Ctrl-C in the middle of a task: the parent sees it as its own
        raise KeyboardInterrupt from None

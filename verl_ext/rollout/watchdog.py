"""Ends a run that cannot continue, and logs the reason, instead of letting it wait forever.

veRL waits without a timeout for groups whose reward never returns, for a weight transfer whose receiver has failed, and
for an actor that is gone. The watchdog is a thread in the trainer's process. It detects when a named actor of the run
has died, and when neither a group of responses nor a phase of a step has finished for too long. It then logs what is
pending and the call stack of the trainer, and ends the trainer's process, which ends the run. An exception would not
reach a thread that waits inside Ray.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

SECONDS_BETWEEN_CHECKS = 2.0
# Time limit for describing what is pending.
SECONDS_TO_DESCRIBE = 5.0
# Time for Ray to forward the last log lines to the command line.
SECONDS_TO_LOG = 3.0


def end_process(reason: str) -> None:
    """Log why the run ends and end this process."""
    logger.error("watchdog: the run ends: %s", reason)
    time.sleep(SECONDS_TO_LOG)
    os._exit(1)


class Watchdog(threading.Thread):
    """Watches the current process while its main thread runs `function`.

    Args:
        function: name of the watched function.
        patience: seconds without a call of `progress` or a change of `finished` after which the run ends.
        list_actors: returns the names of all live actors. An actor that disappears from the list has died.
        describe: describes what is pending.
        finished: returns the phases that have finished so far, as any comparable value.
        end: called with the reason when the run cannot continue.
    """

    def __init__(
        self,
        function: str,
        patience: float,
        list_actors: Callable[[], Collection[str]],
        describe: Callable[[], str],
        finished: Callable[[], object],
        end: Callable[[str], None] = end_process,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._function = function
        self._patience = patience
        self._list_actors = list_actors
        self._describe = describe
        self._finished = finished
        self._last_finished: object = None
        self._actors: set[str] = set()
        self._last_progress = time.monotonic()
        self._end = end

    def progress(self) -> None:
        """Restart the clock because something has finished."""
        self._last_progress = time.monotonic()

    def run(self) -> None:
        """Check until the function returns or the run is ended."""
        # The time before this point, such as the start of all workers, does not count.
        self.progress()
        while stack := self._watched_stack():
            if reason := self._find_reason():
                self._end(f"{reason}; {self._pending()}. The trainer stands at\n{''.join(stack.format())}")
                return
            time.sleep(SECONDS_BETWEEN_CHECKS)

    def _watched_stack(self) -> traceback.StackSummary | None:
        """Return the call stack of the main thread, None if the watched function is not in it."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = traceback.extract_stack(frame)
        return stack if any(call.name == self._function for call in stack) else None

    def _find_reason(self) -> str | None:
        try:
            alive = set(self._list_actors())
        except Exception:
            # Ray may be temporarily unresponsive; a lasting failure shows as a lack of progress.
            logger.exception("watchdog: the actors could not be listed")
            alive = self._actors
        died = self._actors - alive
        self._actors |= alive
        if died:
            return f"died: {', '.join(sorted(died))}"
        if (finished := self._finished()) != self._last_finished:
            self._last_finished = finished
            self.progress()
        waited = time.monotonic() - self._last_progress
        if waited > self._patience:
            return f"nothing has finished for {waited:.0f} s"
        return None

    def _pending(self) -> str:
        description: list[str] = []
        # In a separate thread, because the call may hang for the same reason as the run.
        thread = threading.Thread(target=lambda: description.append(self._describe()), daemon=True)
        thread.start()
        thread.join(SECONDS_TO_DESCRIBE)
        return description[0] if description else "what is pending could not be found out"

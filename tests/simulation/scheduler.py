"""Turns: every process is a greenlet on one clock, and who goes next is drawn from the seed.

A process gives way at every step, which is every call that touches the world. Between two of its
steps nothing else happens; at each of them it may be killed, or frozen for some time.
"""

from collections import Counter, deque

from greenlet import getcurrent, greenlet

NOON_SECONDS = 1_763_900_000
STEP_SECONDS = 0.001
STEPS_BETWEEN_LOOKS = 20


class Crash(BaseException):
    """kill -9; no handler of the program may catch it."""


class Task:
    """One process.

    Attributes:
        name: Of the process, in the trace.
        wake_at: When it goes on, on the simulated clock.
        frozen_until: SIGSTOP until then.
        crash_in: Killed after so many steps more; None lives on.
        crash_at: Killed at the next step of this name.
        ended_by: The Crash or the error that ended it; None while it runs or after it returned.
        is_done: Whether it has ended.
    """

    def __init__(self, name, run, hub):
        self.name = name
        self.wake_at = self.frozen_until = 0.0
        self.crash_in = self.crash_at = None
        self.ended_by = None
        self.is_done = False
        self.greenlet = greenlet(self._main, hub)
        self._run = run

    @property
    def due(self):
        return max(self.wake_at, self.frozen_until)

    def _main(self):
        try:
            self._run()
        except Crash as crash:
            self.ended_by = crash
        finally:
            self.is_done = True


class Scheduler:
    """The clock and whose turn it is; stands in for the `time` module.

    Attributes:
        crashes: How often a process was killed at each step.
        trace: The last steps: (time, process, step).
    """

    def __init__(self, random):
        self.random = random
        self.now = 1000.0
        self.tasks = []
        self.crashes = Counter()
        self.trace = deque(maxlen=3000)
        self._hub = getcurrent()
        self._current = None

    # the `time` module

    def monotonic(self):
        return self.now

    def time(self):
        return NOON_SECONDS + self.now

    def sleep(self, seconds):
        self.step("sleep", seconds)

    def now_ms(self):
        return int(self.time() * 1000)

    # processes

    def spawn(self, name, run):
        task = Task(name, run, self._hub)
        task.wake_at = self.now
        self.tasks.append(task)
        return task

    def step(self, label, seconds=0.0):
        """Give way; the process goes on after `seconds` at the earliest."""
        task = self._current
        if task is None:
            return  # outside of any process: a test looks at something
        if task.crash_at == label or task.crash_in == 0:
            self.crashes[label] += 1
            self.note("killed at " + label)
            raise Crash(label)
        if task.crash_in is not None:
            task.crash_in -= 1
        self.trace.append((self.now, task.name, label))
        task.wake_at = self.now + seconds
        self._hub.switch()

    def note(self, text):
        """Leave a line in the trace."""
        name = self._current.name if self._current else "world"
        self.trace.append((self.now, name, text))

    def run(self, is_over):
        """Give turns until `is_over`, which is asked now and then."""
        while not is_over():
            for _ in range(STEPS_BETWEEN_LOOKS):
                self._give_a_turn()

    def _give_a_turn(self):
        self.tasks = [task for task in self.tasks if not task.is_done]
        ready = [task for task in self.tasks if task.due <= self.now]
        if not ready:
            self.now = min(task.due for task in self.tasks)
            return
        self._current = self.random.choice(ready)
        self._current.greenlet.switch()
        self._current = None
        self.now += STEP_SECONDS * self.random.random()

    def end(self):
        """Kill whoever still runs."""
        for task in self.tasks:
            if not task.is_done and task.greenlet:
                task.greenlet.throw(Crash("end"))
            task.is_done = True
        self.tasks = []

"""An asyncio reader, called as the one on threads is: so that both are held to the same tests."""

import asyncio
import threading


class BlockingReader:
    """Runs an `AsyncFeatureReader` on an event loop of its own, in a thread."""

    def __init__(self, reader):
        self.reader = reader
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine, timeout_seconds=30.0):
        """Return what the coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_seconds)

    def start(self):
        self.run(self.reader.start())
        return self

    def close(self):
        if self._thread.is_alive():
            self.run(self.reader.close())
            self.run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, traceback):
        self.close()

    @property
    def model(self):
        return self.reader.model

    def get(self, user_id, **options):
        return self.run(self.reader.get(user_id, **options))

    def get_many(self, user_ids, **options):
        return self.run(self.reader.get_many(user_ids, **options))

    def top_k(self, *args, **options):
        return self.run(self.reader.top_k(*args, **options))

    def top_k_many(self, *args, **options):
        return self.run(self.reader.top_k_many(*args, **options))

    def score(self, *args, **options):
        return self.reader.score(*args, **options)

    def rank_rows(self, *args, **options):
        return self.reader.rank_rows(*args, **options)

    async def _end(self):
        """Let what close left behind end, and say if it is more than nothing."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"still running: {left}"
        await self._loop.shutdown_default_executor()

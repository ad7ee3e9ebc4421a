"""What a store of several shards holds: each forgets by itself, and the least of them vouches."""

from collections import ChainMap
from dataclasses import dataclass

from streamer.stores.bucket_marks import smallest
from streamer.stores.keys import bucket_number
from streamer.stores.memory import MemoryState


@dataclass
class Shards:
    """A store of one shard is a standalone one."""

    shards: list[MemoryState]

    @classmethod
    def empty(cls, n_shards):
        return cls([MemoryState() for _ in range(n_shards)])

    def number_of(self, user_id):
        return bucket_number(user_id) % len(self.shards)

    @property
    def values(self):
        return ChainMap(*(shard.values for shard in self.shards))

    @property
    def sums(self):
        return ChainMap(*(shard.sums for shard in self.shards))

    @property
    def marks(self):
        """What all shards together vouch for, where they do."""
        partitions = set().union(*(shard.marks for shard in self.shards))
        found = {p: smallest([shard.marks.get(p) for shard in self.shards]) for p in partitions}
        return {partition: mark for partition, mark in found.items() if mark is not None}

    def copy(self):
        """Return what replicas would hold that are up to date now."""
        return Shards([shard.copy() for shard in self.shards])

    def forget(self, since, random):
        """Let one shard go back to a copy, or to nothing; seldom several at once."""
        n_shards = len(self.shards)
        n_forgetful = random.choice([1, 1, n_shards])
        for number in random.sample(range(n_shards), n_forgetful):
            self.shards[number].forget(None if since is None else since.shards[number])

"""Sizes at which work is cut into pieces, kept in memory or sent, for this machine's hardware.

No answer depends on them, only time and memory: they are one object, so that tests can make every
piece small and see that nothing else changes.
"""

from dataclasses import dataclass


@dataclass
class Tuning:
    """Bytes, entries and counts; attributes may be changed at any time.

    Attributes
    ----------
    max_chunks, chunk_entries : int
        Most pieces of a pass over an array, and the least entries of a piece, which a thread takes.
    kept_bytes : int
        Losses up to this size are brought into memory as contiguous rows once, whatever their form.
    block_entries, file_block_bytes : int
        What a pass reads at a time of other arrays in memory and of arrays in files, whose disks
        need longer runs than a cache.
    copied_bytes : int
        Most bytes of losses of a few classifiers that are copied out to be solved.
    distinct_bytes : int
        Memory of the search for distinct rows, besides a tensor that may be in a file.
    worthwhile_share : float
        Presolve has paid if it leaves at most this share of the rows.
    shrink_gap, shrink_share, shrink_rows : float, float, int
        The interior point leaves rows aside from this relative gap on, if they hold less than this
        share of their sample's dual, and the game has so many rows.
    subsample_bytes : int
        A subsample of a sharded tensor below this size, as float64, is solved in this process.
    sent_candidates : int
        A Gibbs strategy on more candidates stays in the shards.
    small_block, large_block, blocks : int
        Bytes of the blocks of a Dask array (a task costs up to 3 ms, and so does a pass over the
        smallest), and how many of them are enough.
    fan_in, message_bytes : int
        Partial results that one Dask task adds up, and bytes of arguments in one message; Dask
        warns of tasks that bring more than 10 MB.
    minorants, kept_minorants : int
        Linear lower bounds kept by branch and bound, and how many of the last ones when full.
    drawn_entries, scored_entries : int
        Entries of a block of random losses, and of products of points and linear classifiers.
    row_bytes : int
        A block of rows of a loss tensor whose number of samples is not known in advance.
    risk_entries : int
        Losses that are turned into risks at a time.
    resampled_counts : int
        Of one block of bootstrap resamples: 32 MB.
    uncompiled_entries, uncompiled_least, uncompiled_entries_in_all : int
        Losses of a game that may be solved without compiled kernels, what a smaller one counts as,
        and how many there may be in a process, in all games of a kind: ten of the largest games,
        fifty small ones. None with 0.
    """

    max_chunks: int = 64
    chunk_entries: int = 1 << 16
    kept_bytes: int = 16 << 20
    block_entries: int = 1 << 18
    file_block_bytes: int = 8 << 20
    copied_bytes: int = 64 << 20
    distinct_bytes: int = 672 << 20
    worthwhile_share: float = 0.25
    shrink_gap: float = 3e-3
    shrink_share: float = 3e-3
    shrink_rows: int = 1000
    subsample_bytes: int = 16 << 20
    sent_candidates: int = 1 << 20
    small_block: int = 16 << 20
    large_block: int = 512 << 20
    blocks: int = 1024
    fan_in: int = 16
    message_bytes: int = 8 << 20
    minorants: int = 4096
    kept_minorants: int = 2048
    drawn_entries: int = 1 << 20
    scored_entries: int = 1 << 22
    row_bytes: int = 1 << 26
    risk_entries: int = 1 << 22
    resampled_counts: int = 4_000_000
    uncompiled_entries: int = 100_000
    uncompiled_least: int = 20_000
    uncompiled_entries_in_all: int = 1_000_000


tuning = Tuning()

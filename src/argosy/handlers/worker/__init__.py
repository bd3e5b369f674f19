"""What runs inside the processes that run an archive's code: the nursery they are forked from, and a worker's loop.

Imports the standard library, msgspec and our core nouns, nothing else: everything here is resident in each worker.
"""

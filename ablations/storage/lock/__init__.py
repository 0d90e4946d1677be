"""Who runs a study: one driver at a time, on whichever machine, and everybody else is told which.

| database   | what is held                                      | who is kept out                          |
| SQLite     | a lock on a file beside the database              | whoever can reach the file               |
| PostgreSQL | an advisory lock of a session of its own          | whoever can reach the server             |
| others     | a lock on a file in the study's folder            | whoever has the same `results_dir`       |

All of them end with the process, however that ends: the kernel lets go of the file, and closes the session's socket. A
machine that vanished is noticed by the server's keepalives, within about a minute. Nothing is ever left to clean up.
"""

from ablations.storage.lock.base import Lock
from ablations.storage.lock.select import claimed, lock_of

__all__ = ["Lock", "claimed", "lock_of"]

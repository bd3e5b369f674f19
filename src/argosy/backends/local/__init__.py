"""Replicas as process groups of this machine: started, watched, started again, adopted, ended.

One task per replica leads it through its life (`replica.py`); the backend (`backend.py`) says how many there are and
which of them take requests, by the pure rules of `backends/roles.py`. Replicas are no children in spirit: they lead
sessions of their own and outlive the control plane. What a new control plane needs to find them again is written
before they start (`records.py`): a record with a token, which the process carries in its environment. So a process
started in the very moment of a crash is found by its token, and there is never an orphan and never a double.

    opening.py     alone in a directory, and with what was left running there         (rim)
    backend.py     the socket: apply, delete, list, logs, devices                     (rim)
    replica.py     one replica's life: place, start, attend, restart, drain           (rim)
    health.py      probe answers → starting, ready, unready, hung                     (pure)
    adoption.py    records + living processes → who belongs to whom                   (pure)
    placement.py   needs + devices + what is held → devices, or why not               (pure)
    rendering.py   exactly what would run, as YAML                                    (pure)
    processes.py   spawn, identity, death noticed at once, the end of a whole group   (rim)
    launcher.py    port, token, log file, and a process of its own or a standby's     (rim)
    rounds.py      what a replica is asked, and in what order                         (rim)
    probe.py       one light HTTP question                                            (rim)
    ports.py       free ports
    records.py     what is remembered on disk
    log_files.py   one file per start; tail, follow, rotation
    inventory.py   the devices of this machine, found or declared
    standby.py     warm processes that wait for a model
    usage.py       memory and CPU time of process groups
    housekeeping.py  limits, large logs, how busy devices are
    settings.py    patience, as a value

Read first: `replica.py`.
"""

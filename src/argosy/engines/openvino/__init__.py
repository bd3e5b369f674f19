"""The fast engine on CPUs: OpenVINO GenAI's continuous batching, in a process of its own.

`ContinuousBatchingPipeline.step()` runs one forward pass of the whole batch and holds Python's global lock all the
while, so a thread of the server's own process would freeze every other request for the length of a step. The
pipeline therefore lives in a child process (`worker.py`) with one loop and no threads of ours: take commands, step,
report. `engine.py` is the socket seen by the server; the two speak length-prefixed msgpack (`messages.py`) over a
socket pair nobody else can open. One message a step carries what every request gained. A crash or a hang of native
code thus ends a child, not the server: every stream gets EngineDead and the health check fails.

    engine.py       the Engine socket: start, submit, await, abort    (server's process, event loop)
    stream.py       one request's gains, until its consumer takes them
    preparation.py  files → a folder OpenVINO loads quickly, made once and kept
    preparing.py    the making of it                                  (a child of its own)
    rewriting.py    a GGUF file → one that OpenVINO reads exactly     (that child)
    channel.py      the child process and its messages                (server's process)
    watchdog.py     is a silent child computing or hung? (pure)       (server's process)
    generation_config.py  SamplingParams → GenerationConfig fields (pure)
    constraints.py  schema, regex, grammar: bounded before the engine sees them (pure)
    json_grammar.py JSON schema → a grammar without filler (pure)
    messages.py     what travels, and its framing
    worker.py       the loop                                          (child)
    scorer.py       top log probabilities, by a second reading        (child)
    loading.py      prepared folder + settings → a pipeline           (child)

Read first: `engine.py`, then `worker.py`.
"""

"""T5 and its family behind the Engine socket, on CTranslate2: int8 on a CPU, float16 on a GPU.

An encoder reads the prompt once, a decoder writes the answer. CTranslate2 decodes a batch of prompts together and lets
rows leave one by one; it cannot let one join. So requests are cut into batches when a lane is free, and a lane is one
of a few concurrent decodings over the same weights.

    weights.py       a checkpoint's tensors as numpy arrays, without torch
    t5.py            T5 and mT5 as a CTranslate2 specification
    conversion.py    checkpoint → CTranslate2 folder, once, kept in the engine cache
    request_rows.py  one request as a row of a batch: its stops, its gains, its end
    lanes.py         which waiting rows go together, and the threads that decode them
    engine.py        the socket

Read first: `engine.py`.
"""

"""Text ⇄ token ids, for serving and for training alike, so that the two can never disagree.

`tokenizer.py` encodes and decodes (from GGUF metadata or Hugging Face files), `chat_template.py` renders a
conversation in a sandbox, `detokenizer.py` turns a stream of ids into printable text, `tool_calls.py` finds tool
calls in that text. Nothing here knows engines, HTTP or model names.

Read first: `detokenizer.py`.
"""

"""A typed client of the control plane's API, for the command line, for reports and for notebooks.

    async with open_client() as client:
        await client.apply(InferenceService(metadata=Metadata(name="chat"), spec=spec))
        async for service in client.wait_ready("chat", timeout_seconds=120):
            print(service.status.phase)

Each call takes and gives the types of `core`: what is refused over HTTP is raised here as the same error of
`core.errors` that the server raised. It retries only what is safe to repeat, and every call has a deadline.

This room may not know how the API does its work; it sees URLs, JSON and `core`.
Read first: `control_client.py`, then `channel.py` (one request, one stream, one error).
"""

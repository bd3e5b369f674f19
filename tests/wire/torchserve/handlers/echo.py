"""A module with `handle`: each request's body comes back as it is."""


def handle(data, context):
    if data is None:
        return None
    return [row.get("body", "") for row in data]

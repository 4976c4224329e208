"""Workers of a shared training on this machine's loopback interface; for the benchmarks that start some."""

import json
import socket


def tf_configs(count: int) -> list[str]:
    """TF_CONFIG of each of so many workers, at ports that were free just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    workers = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [json.dumps({"cluster": {"worker": workers}, "task": task}) for task in tasks]

#!/usr/bin/env python3
"""The services in the drive, in one process that may be killed or stopped as any: one port for uploads, one for
downloads, two that send back what comes. It knows how each connection ended: by FIN or by RST.

Prints its ports as JSON; then a line of JSON on standard input names a method of Service, a line on standard output is
its result. It ends with its standard input.
"""

import asyncio
import hashlib
import json
import os
import resource
import sys
import time

from content import BLOCK, block

PACE = 0.004  # as in client.py


class Connection:
    def __init__(self, use):
        self.use = use
        self.received = self.sent = 0
        self.sha = hashlib.sha256()
        self.end = self.at = None  # "fin", "rst" or another error, once it has ended

    def report(self):
        return {"use": self.use, "received": self.received, "sent": self.sent, "digest": self.sha.hexdigest(),
                "end": self.end, "at": self.at}


class Service:
    def __init__(self):
        self.connections = []
        self.finished = asyncio.Event()
        self.pause = 0  # seconds between two reads of an upload

    async def listen(self):
        ports = {}
        for use in ("up", "down", "idle", "storm"):
            server = await asyncio.start_server(lambda *ends, use=use: self.serve(use, *ends), "127.0.0.1", 0,
                                                backlog=4096)
            ports[use] = server.sockets[0].getsockname()[1]
        return ports

    async def serve(self, use, reader, writer):
        connection = Connection(use)
        self.connections.append(connection)
        try:
            await getattr(self, "serve_" + use)(connection, reader, writer)
            connection.end = "fin"
        except ConnectionResetError:
            connection.end = "rst"
        except OSError as error:
            connection.end = str(error)
        connection.at = time.monotonic()
        writer.close()

    async def serve_up(self, connection, reader, _writer):
        while data := await reader.read(BLOCK):
            connection.received += len(data)
            connection.sha.update(data)
            if self.pause:
                await asyncio.sleep(self.pause)

    async def serve_down(self, connection, reader, writer):
        ended = asyncio.ensure_future(reader.read(1))
        number = 0
        while not self.finished.is_set() and not ended.done():
            writer.write(block("down", number))
            room = asyncio.ensure_future(writer.drain())
            await asyncio.wait({room, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                room.cancel()
                break
            await room
            connection.sent += BLOCK
            number += 1
            await asyncio.sleep(PACE)
        if not ended.done():
            writer.write_eof()
        await ended

    async def serve_idle(self, _connection, reader, writer):
        while data := await reader.read(BLOCK):
            writer.write(data)

    serve_storm = serve_idle  # which end as it comes: with a reset, if the echo was not taken

    # What standard input asks for.

    def finish(self):
        """Downloads are to end after the block they are at."""
        self.finished.set()

    def slow(self, pause):
        self.pause = pause

    def open(self):
        """How many connections have not ended."""
        return sum(not connection.end for connection in self.connections)

    def report(self):
        """Both transfers, how many idle connections are in which state, and when the last connection ended."""
        told = {use: connection.report() for use in ("up", "down")
                for connection in self.connections if connection.use == use}
        ends = [connection.end or "open" for connection in self.connections if connection.use == "idle"]
        return {**told, "idle": {end: ends.count(end) for end in set(ends)},
                "at": max((connection.at for connection in self.connections if connection.at), default=None)}


async def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = Service()
    print(json.dumps(await service.listen()), flush=True)
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while line := await asked.readline():
        request = json.loads(line)
        print(json.dumps(getattr(service, request.pop("do"))(**request)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())

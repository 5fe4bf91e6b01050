"""What every client library is asked to do, with an unmodified redis.asyncio.

usage: redis_py_async.py PORT {2|3} KEY0 ... KEY5      (keys of the three shards in turn)
Prints what each step answered, one per line; the test beside this file judges.
"""

import asyncio
import sys

import redis
import redis.asyncio

port, protocol, keys = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
UNLOCK = """if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0"""


def show(name, *replies):
    """True is how the library says OK."""
    words = {True: "OK", None: "nil"}
    texts = [reply if isinstance(reply, (int, str)) and reply is not True else words[reply] for reply in replies]
    print(name, *texts)


def connect():
    return redis.asyncio.Redis(port=port, protocol=protocol, decode_responses=True)


async def add_one(client):
    """One turn of the loop round WATCH, as often as it needs."""
    async with client.pipeline() as pipe:
        while True:
            try:
                await pipe.watch(keys[3], keys[4])
                low, high = int(await pipe.get(keys[3])), int(await pipe.get(keys[4]))
                pipe.multi()
                pipe.set(keys[3], low + 1).set(keys[4], high + 1)
                return await pipe.execute()
            except redis.WatchError:
                continue


async def count_up():
    async with connect() as client:
        for _ in range(10):
            await add_one(client)


async def broken_watch(client):
    async with client.pipeline() as pipe:
        await pipe.watch(keys[3], keys[4])
        await client.set(keys[4], 0)
        pipe.multi()
        pipe.set(keys[3], "lost")
        try:
            return await pipe.execute()
        except redis.WatchError:
            return None


async def listen(client):
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(*keys[:3])
        await pubsub.psubscribe("news.*")
        for _ in range(4):
            await pubsub.get_message(timeout=10)
        for channel in [*keys[:3], "news.art"]:
            count = await client.publish(channel, "hello")
            heard = await pubsub.get_message(timeout=10)
            print("published", count, "heard", heard["channel"], heard["data"])


async def pop(client):
    waiting = asyncio.create_task(client.blpop([keys[5], keys[3] + ":list"], timeout=10))
    other = connect()
    while (await other.info("clients"))["blocked_clients"] == 0:
        await asyncio.sleep(0.01)
    await other.rpush(keys[5], "element")
    await other.aclose()
    print("popped", *await waiting)


async def lock(client):
    name = keys[4] + ":lock"
    took = [await client.set(name, owner, nx=True, px=10000) for owner in ("me", "you")]
    show("locked", *took)
    print("unlocked", *[await client.eval(UNLOCK, 1, name, owner) for owner in ("you", "me")])
    async with client.lock(name, timeout=5):
        held = await client.exists(name)
    return held, await client.exists(name)


async def main():
    client = connect()
    print("ping", "PONG" if await client.ping() else "nothing")
    pipe = client.pipeline(transaction=False)
    pipe.set(keys[0], "zero").incr(keys[1]).rpush(keys[2], "a", "b").get(keys[0]).lrange(keys[2], 0, -1)
    *replies, elements = await pipe.execute()
    show("pipeline", *replies, *elements)
    pipe = client.pipeline(transaction=True)
    pipe.set(keys[0], "one").incr(keys[1]).rpush(keys[2], "c").get(keys[0]).get("nothing")
    show("transaction", *await pipe.execute())
    await client.mset({keys[3]: 0, keys[4]: 0})
    await asyncio.gather(count_up(), count_up())
    print("counted", *await client.mget(keys[3], keys[4]))
    show("broken watch", await broken_watch(client))
    await listen(client)
    await pop(client)
    append = "return redis.call('APPEND', KEYS[1], ARGV[1])"
    print("eval", *[await client.eval(append, 1, key, "xy") for key in keys[3:5]])
    digest = await client.script_load(append)
    print("evalsha", *[await client.evalsha(digest, 1, key, "z") for key in keys[3:5]])
    held = await lock(client)
    print("deleted", await client.delete(*keys))
    print("the library's own lock", *held)
    await client.aclose()


asyncio.run(main())

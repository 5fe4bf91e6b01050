"""The acceptance transaction with an unmodified redis-py: ten keys over all shards.

usage: redis_py.py PORT {2|3|default} KEY0 ... KEY9
Prints what each step answered, one per line; the test beside this file judges.
"""

import sys

import redis

port, protocol, keys = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
# redis-py 8 asks for RESP3 unless told otherwise.
wanted = {} if protocol == "default" else {"protocol": int(protocol)}
client = redis.Redis(host="127.0.0.1", port=port, decode_responses=True, **wanted)
print("ping", client.ping())

pipe = client.pipeline(transaction=True)
pipe.set(keys[0], "zero")
pipe.incr(keys[1])
pipe.lpush(keys[2], "a", "b")
pipe.get(keys[3])
pipe.set(keys[4], "four", ex=1000)
pipe.incr(keys[5], 7)
pipe.lpush(keys[6], "c")
pipe.get(keys[0])
pipe.incr(keys[1])
pipe.get(keys[7])
pipe.set(keys[8], "eight")
pipe.lpush(keys[9], "d", "e", "f")
print("transaction", pipe.execute())

# Errors come in their place; redis-py raises the first one after reading all replies.
pipe = client.pipeline(transaction=True)
pipe.set(keys[3], "three")
pipe.incr(keys[0])
pipe.set(keys[7], "seven")
print("with an error", [str(reply) for reply in pipe.execute(raise_on_error=False)])

pipe = client.pipeline(transaction=False)
for key in (keys[0], keys[3], keys[7], keys[8]):
    pipe.get(key)
print("plain pipeline", pipe.execute())
print("mget", client.mget(keys[0], keys[3], keys[7], "nothing"))
print("mset", client.mset({keys[0]: "0", keys[3]: "3"}))
print("exists", client.exists(*keys))
client.sadd(keys[2] + ":set", "m")
client.hset(keys[2] + ":hash", "f", "v")
client.zadd(keys[2] + ":zset", {"m": 1.5})
print(
    "types",
    client.smembers(keys[2] + ":set"),
    client.hgetall(keys[2] + ":hash"),
    client.zscore(keys[2] + ":zset", "m"),
)
try:
    client.get(keys[2])
except redis.ResponseError as error:
    print("wrong type", error)


def count_up(pipe):
    """For redis-py's own loop round WATCH: keys on different shards."""
    low, high = int(pipe.get(keys[0])), int(pipe.get(keys[3]))
    pipe.multi()
    pipe.set(keys[0], low + 1)
    pipe.set(keys[3], high + 1)


print("watched", client.transaction(count_up, keys[0], keys[3], keys[1]))
pipe = client.pipeline()
pipe.watch(keys[0], keys[1])
client.incr(keys[1])
pipe.multi()
pipe.set(keys[3], "lost")
try:
    pipe.execute()
except redis.WatchError:
    print("watch error", client.mget(keys[0], keys[3]))
client.close()

other = redis.Redis(host="127.0.0.1", port=port, db=3, decode_responses=True, **wanted)
pipe = other.pipeline(transaction=True)
pipe.set(keys[0], "three").set(keys[1], "three").mget(keys[0], keys[1], keys[2])
print("database 3", pipe.execute())
print("deleted", other.delete(keys[0], keys[1]))
other.close()

"""Pub/sub from a thread, blocking pops and scripts with an unmodified redis-py, RESP2 and RESP3.

usage: redis_py_channels.py PORT KEY0 KEY1 KEY2
Prints what each step answered, one per line; the test beside this file judges.
"""

import queue
import sys
import threading

import redis

port, keys = int(sys.argv[1]), sys.argv[2:]
for protocol in (2, 3):
    client = redis.Redis(
        host="127.0.0.1", port=port, protocol=protocol, decode_responses=True
    )
    heard = queue.Queue()
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    note = lambda message: heard.put((message["type"], message["channel"], message["data"]))
    pubsub.subscribe(**{key: note for key in keys})
    pubsub.psubscribe(**{"news.*": note})
    thread = pubsub.run_in_thread(sleep_time=0.01)
    while client.pubsub_numpat() == 0 or 0 in dict(client.pubsub_numsub(*keys)).values():
        pass
    for number, key in enumerate(keys):
        print(protocol, "publish", client.publish(key, f"m{number}"))
        print(protocol, "heard", heard.get(timeout=10)[2])
    print(protocol, "publish", client.publish("news.art", "p"), heard.get(timeout=10))
    thread.stop()
    thread.join()

    popped = queue.Queue()
    pop = lambda: popped.put(client.blpop(keys, timeout=10))
    waiter = threading.Thread(target=pop)
    waiter.start()
    client.rpush(keys[1], "element")
    waiter.join()
    print(protocol, "popped", popped.get()[1])

    append = client.register_script("return redis.call('APPEND', KEYS[1], ARGV[1])")
    print(protocol, "script", [append(keys=[key], args=["xy"]) for key in keys])
    print(protocol, "without keys", client.eval("return 'hello'", 0))
    with client.lock("{lock}", timeout=5):
        print(protocol, "locked", client.exists("{lock}"))
    print(protocol, "deleted", client.delete(*keys))
    client.close()

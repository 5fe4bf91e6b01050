"""An application on redis-py as it comes: threads that move money, and note each transfer in the
same transaction. It never says how to connect again.

usage: transfer.py PORT NAME ACCOUNT...     until its input ends
Prints one JSON object: acknowledged transfers, those that failed, errors by text.
"""

import json
import random
import sys
import threading
from collections import Counter

import redis

THREADS = 3
port, name, accounts = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
client = redis.Redis(host="127.0.0.1", port=port)
over = threading.Event()
acknowledged, failed, wrong, errors = [], [], [], Counter()


def work(number):
    count = 0
    while not over.is_set():
        count += 1
        transfer = f"{number}-{count}"
        amount = random.randint(1, 9)
        source, target = random.sample(accounts, 2)
        pipe = client.pipeline(transaction=True)
        pipe.decrby(source, amount)
        pipe.incrby(target, amount)
        pipe.rpush(f"log:{name}:{number}", transfer)
        try:
            replies = pipe.execute()
        except redis.RedisError as error:
            failed.append(transfer)
            errors[f"{type(error).__name__}: {str(error)[:60]}"] += 1
            continue
        acknowledged.append(transfer)
        if [type(reply) for reply in replies] != [int, int, int]:
            wrong.append(repr(replies))


threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps({"acknowledged": acknowledged, "failed": failed, "wrong": wrong, "errors": errors}))

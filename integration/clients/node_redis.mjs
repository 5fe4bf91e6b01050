// What every client library is asked to do, with an unmodified node-redis.
//
// usage: node_redis.mjs PORT {2|3} KEY0 ... KEY5      (keys of the three shards in turn)
// Prints what each step answered, one per line; the test beside this file judges.

import { createRequire } from "node:module";

// The library is where integration/clients/setup has put it.
const { createClient, WatchError } = createRequire(process.cwd() + "/")("redis");

const [port, protocol, ...keys] = process.argv.slice(2);
const UNLOCK = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`;
const APPEND = "return redis.call('APPEND', KEYS[1], ARGV[1])";
const print = (...words) => console.log(words.map((word) => word ?? "nil").join(" "));
const all = (values, act) => Promise.all(values.map(act));

async function connect() {
  const client = createClient({ socket: { port: Number(port), host: "127.0.0.1" }, RESP: Number(protocol) });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  return client.connect();
}

async function countUp() {
  const client = await connect();
  for (let turns = 0; turns < 10; ) {
    await client.watch(keys.slice(3, 5));
    const [low, high] = await all(keys.slice(3, 5), (key) => client.get(key));
    const next = client.multi().set(keys[3], Number(low) + 1).set(keys[4], Number(high) + 1);
    turns += await next.exec().then(
      () => 1,
      (error) => {
        if (!(error instanceof WatchError)) throw error;
        return 0;
      },
    );
  }
  await client.close();
}

async function brokenWatch(client) {
  const watching = await connect();
  await watching.watch(keys.slice(3, 5));
  await client.set(keys[4], 0);
  const reply = await watching.multi().set(keys[3], "lost").exec().catch((error) => error);
  print("broken watch", reply instanceof WatchError ? "nil" : reply);
  await watching.close();
}

async function listen(client) {
  const subscriber = await connect();
  const heard = [];
  let wake = () => {};
  const note = (message, channel) => {
    heard.push(`${channel} ${message}`);
    wake();
  };
  for (const channel of keys.slice(0, 3)) await subscriber.subscribe(channel, note);
  await subscriber.pSubscribe("news.*", note);
  for (const channel of [...keys.slice(0, 3), "news.art"]) {
    const hears = new Promise((resolve) => (wake = resolve));
    const count = await client.publish(channel, "hello");
    await hears;
    print("published", count, "heard", heard.pop());
  }
  await subscriber.close();
}

async function pop(client) {
  const waiting = await connect();
  const popped = waiting.blPop([keys[5], keys[3] + ":list"], 10);
  while (!(await client.info("clients")).includes("blocked_clients:1")) continue;
  await client.rPush(keys[5], "element");
  const { key, element } = await popped;
  print("popped", key, element);
  await waiting.close();
}

async function lock(client) {
  const name = keys[4] + ":lock";
  const take = (owner) => client.set(name, owner, { NX: true, PX: 10_000 });
  const give = (owner) => client.eval(UNLOCK, { keys: [name], arguments: [owner] });
  print("locked", await take("me"), await take("you"));
  print("unlocked", await give("you"), await give("me"));
}

const client = await connect();
print("ping", await client.ping());
// Commands of one turn of the event loop go out as one pipeline.
const [ok, one, two, zero, list] = await Promise.all([
  client.set(keys[0], "zero"),
  client.incr(keys[1]),
  client.rPush(keys[2], ["a", "b"]),
  client.get(keys[0]),
  client.lRange(keys[2], 0, -1),
]);
print("pipeline", ok, one, two, zero, ...list);
const queue = client.multi().set(keys[0], "one").incr(keys[1]).rPush(keys[2], "c").get(keys[0]).get("nothing");
print("transaction", ...(await queue.exec()));
await client.mSet([[keys[3], "0"], [keys[4], "0"]]);
await Promise.all([countUp(), countUp()]);
print("counted", ...(await client.mGet(keys.slice(3, 5))));
await brokenWatch(client);
await listen(client);
await pop(client);
const at = (key, value) => ({ keys: [key], arguments: [value] });
print("eval", ...(await all(keys.slice(3, 5), (key) => client.eval(APPEND, at(key, "xy")))));
const digest = await client.scriptLoad(APPEND);
print("evalsha", ...(await all(keys.slice(3, 5), (key) => client.evalSha(digest, at(key, "z")))));
await lock(client);
print("deleted", await client.del(keys));
await client.close();

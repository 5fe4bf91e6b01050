// The same as transfer.py, on node-redis as it comes.
//
// usage: node transfer.mjs PORT NAME ACCOUNT...     until its input ends
import { createClient } from 'redis';

const [port, name, ...accounts] = process.argv.slice(2);
const WORKERS = 3;
const acknowledged = [], failed = [], wrong = [], errors = {};
const count = (error) => {
  const text = `${error.constructor.name}: ${error.message.slice(0, 60)}`;
  errors[text] = (errors[text] ?? 0) + 1;
};
let over = false;

// An application without this handler would end at the first error of a connection.
const client = createClient({ url: `redis://127.0.0.1:${port}` }).on('error', count);
await client.connect();

async function work(number) {
  for (let turn = 1; !over; turn += 1) {
    const transfer = `${number}-${turn}`;
    const amount = 1 + Math.floor(Math.random() * 9);
    const first = Math.floor(Math.random() * accounts.length);
    const other = (first + 1 + Math.floor(Math.random() * (accounts.length - 1))) % accounts.length;
    try {
      const replies = await client.multi()
        .decrBy(accounts[first], amount)
        .incrBy(accounts[other], amount)
        .rPush(`log:${name}:${number}`, transfer)
        .exec();
      acknowledged.push(transfer);
      if (replies.length !== 3 || replies.some((reply) => typeof reply !== 'number')) {
        wrong.push(JSON.stringify(replies));
      }
    } catch (error) {
      failed.push(transfer);
      count(error);
    }
  }
}

const input = new Promise((resolve) => process.stdin.on('end', resolve).resume());
const work_done = Promise.all(Array.from({ length: WORKERS }, (_, number) => work(number)));
await input;
over = true;
await work_done;
console.log(JSON.stringify({ acknowledged, failed, wrong, errors }));
client.destroy();

/* pg-boss, by its high-throughput way: fetch() many, handle them, complete() them together.

- Batches of 2,000 in two loops side by side (its pool has ten connections). A fetch sorts all that waits, so larger
  batches are faster: with two loops, 1,000 at a time reached three quarters of 2,000 at a time; one loop, half.
- Its own worker, work(), fetches at most twice a second, and is for steadier loads.
- `enqueue-many` is one insert() of jobs made beforehand.
- Everything else is its default: completed jobs stay in the table until its maintenance archives them.

Packages come from NODE_PATH. */

const { parseArgs } = require("node:util");
const { setTimeout: sleep } = require("node:timers/promises");
const PgBoss = require("pg-boss");
const { Pool } = require("pg");

const connectionString = process.env.BENCH_DSN;
const QUEUE = "noop";

const made = (count, payload) =>
  Array.from({ length: count }, (_, i) => ({ name: QUEUE, data: payload ? { user_id: i, name: "abc" } : {} }));

async function settle(pool) {
  await pool.query("vacuum analyze pgboss.job");
  await pool.query("checkpoint");
}

async function drain({ jobs, pool, boss, batch, loops }) {
  await boss.insert(made(jobs));
  await settle(pool);
  let first = 0;
  let done = 0;
  const handler = () => {
    first ||= Date.now();
    done++;
  };
  const loop = async () => {
    while (done < jobs) {
      const fetched = await boss.fetch(QUEUE, { batchSize: batch });
      fetched.forEach(handler);
      if (fetched.length) await boss.complete(QUEUE, fetched.map((job) => job.id));
      else await sleep(10); // the other loop has the last ones, or fetch() swallowed an error
    }
  };
  await Promise.all(Array.from({ length: loops }, loop));
  const ended = Date.now();
  const { rows } = await pool.query("select count(*)::int as left from pgboss.job where state <> 'completed'");
  if (rows[0].left) throw new Error(`${rows[0].left} jobs are left`);
  return { jobs_per_second: (jobs * 1000) / (ended - first) };
}

async function enqueueMany({ jobs, pool, boss }) {
  await boss.insert(made(100, true)); // connections
  await settle(pool);
  const specs = made(jobs, true);
  const began = performance.now();
  await boss.insert(specs);
  return { jobs_per_second: (jobs * 1000) / (performance.now() - began) };
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { batch: { type: "string", default: "2000" }, loops: { type: "string", default: "2" } },
  });
  const [name, jobs] = positionals;
  const [batch, loops] = [+values.batch, +values.loops];
  const work = { drain, "enqueue-many": enqueueMany }[name];
  if (!work) throw new Error(`no such work: ${name}`);
  const pool = new Pool({ connectionString, max: 1 });
  const boss = new PgBoss({ connectionString });
  boss.on("error", console.error);
  await boss.start();
  await boss.createQueue(QUEUE);
  const result = await work({ jobs: +jobs, pool, boss, batch, loops });
  const { version } = require("pg-boss/package.json");
  const settings = `fetch and complete by ${batch}, ${loops} loops side by side in one process, its defaults otherwise`;
  console.log(JSON.stringify({ ...result, version, settings }));
  process.exit(0);
}

main(); // a rejection prints itself and exits 1
